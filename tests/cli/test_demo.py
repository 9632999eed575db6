"""``qsmnet demo``: a folder with inputs, maps, table and pictures, in few lines."""

import csv

import nibabel as nib
import numpy as np
import pytest

from qsmnet.cli import demo, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "--out", str(out), "--size", "32"]) == 0
    return out


def test_folder_holds_inputs_maps_table_and_pictures(folder):
    names = {path.name for path in folder.iterdir()}
    inputs = {"local_field.nii.gz", "mask.nii.gz", "truth.nii.gz", "segmentation.nii.gz"}
    results = {"metrics.csv", "metrics.md", "comparison.png", "spectrum.png", "chi_tkd.nii.gz"}
    assert inputs | results <= names


def test_every_method_has_its_row(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        rows = {row["inverter"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["tkd", "tv", "kqsm", "unet"]
    for name in ("tkd", "tv"):
        assert rows[name]["error"] == ""
        assert 0 < float(rows[name]["nrmse"]) < 100
    for name in ("kqsm", "unet"):
        # without released weights the row says so
        assert bool(rows[name]["error"]) != bool(rows[name]["nrmse"])


def test_noise_is_what_it_says(folder):
    field, truth, mask = (
        nib.load(folder / f"{name}.nii.gz").get_fdata() for name in ("local_field", "truth", "mask")
    )
    assert np.all(field[mask == 0] == 0)
    assert np.all(truth[mask == 0] == 0)
    assert 0.002 < field[mask > 0].std() < 0.1


def test_the_same_head_every_time_and_nothing_overwritten(folder, tmp_path, capsys):
    before = (folder / "local_field.nii.gz").read_bytes()
    assert main(["demo", "--out", str(folder), "--size", "32"]) == 8
    assert "exists already" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "again"), "--size", "32"]) == 0
    assert (tmp_path / "again" / "local_field.nii.gz").read_bytes() == before
    lines = capsys.readouterr().out
    assert "qsmnet compare" in lines


def test_too_small_a_head_is_refused(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--size", "8"]) == 2
    assert "--size" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--sise", "48"], ["--over"], ["--size", "big"], ["--out", ""]])
def test_wrong_options_are_one_line(tmp_path, capsys, option):
    assert main(["demo", "--out", str(tmp_path / "out"), *option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "qsmnet demo" in line or "--out" in line
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "save_comparison", fail)
    monkeypatch.setattr(demo, "INVERTERS", ("tkd",))
    assert main(["demo", "--out", str(tmp_path / "out"), "--size", "32"]) == 130
    assert list(tmp_path.iterdir()) == []
