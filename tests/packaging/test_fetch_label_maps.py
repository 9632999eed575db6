"""The script that fetches label maps keeps what has the right hash, and nothing else."""

import hashlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "training_seg_03.nii.gz"
CONTENT = b"a label map"


@pytest.fixture
def script(monkeypatch):
    path = ROOT / "scripts" / "fetch_label_maps.py"
    spec = importlib.util.spec_from_file_location("fetch_label_maps", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.SHA256, NAME, hashlib.sha256(CONTENT).hexdigest())
    return module


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    return folder


def run(script, source, target):
    return script.main([str(target), "--maps", "3", "--source", source.as_uri()])


def test_a_map_is_fetched_once(script, source, tmp_path, capsys):
    assert run(script, source, tmp_path / "maps") == 0
    assert (tmp_path / "maps" / NAME).read_bytes() == CONTENT
    assert "Apache-2.0" in capsys.readouterr().out
    (source / NAME).unlink()
    assert run(script, source, tmp_path / "maps") == 0
    assert "there already" in capsys.readouterr().out


def test_another_content_is_not_kept(script, source, tmp_path, capsys):
    (source / NAME).write_bytes(b"something else")
    assert run(script, source, tmp_path / "maps") == 4
    assert not list(tmp_path.glob("maps/*"))
    error = capsys.readouterr().err.strip()
    assert "SHA-256" in error
    assert "\n" not in error


def test_a_damaged_file_is_told(script, source, tmp_path, capsys):
    (tmp_path / NAME).write_bytes(b"damaged")
    assert run(script, source, tmp_path) == 4
    assert (tmp_path / NAME).read_bytes() == b"damaged"
    assert "remove it" in capsys.readouterr().err


def test_what_is_not_there_is_one_line(script, source, tmp_path, capsys):
    (source / NAME).unlink()
    assert run(script, source, tmp_path / "maps") == 3
    assert "cannot be fetched" in capsys.readouterr().err
    assert script.main([str(tmp_path), "--maps", "21"]) == 3
    assert "no map 21" in capsys.readouterr().err


def test_the_source_is_one_release(script):
    assert sorted(script.SHA256) == [f"training_seg_{n:02d}.nii.gz" for n in range(1, 21)]
    assert script.SOURCE.startswith("https://github.com/BBillot/SynthSeg/raw/")
    assert script.SOURCE.endswith("/")
