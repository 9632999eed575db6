"""``qsmnet train data=anatomy``: two steps on a tiny label map, its card, and refusals."""

import json

import pytest
from small_maps import write_maps
from train_command import TINY, one_error, train

from qsmnet.cli import main
from qsmnet.simulate.write import FILES
from qsmnet.training.panel import Pictures

ANATOMY = [
    *(each for each in TINY if not each.startswith("simulator=")),
    "data=anatomy",
    "data.build_workers=1",
    "data.workers=0",
    "simulator.shape=[16,16,16]",
    "trainer.max_steps=2",
]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take longer than these runs."""
    monkeypatch.setattr(Pictures, "on_validation_end", lambda *_: None)


def test_two_steps_on_a_label_map(tmp_path):
    # a name that Hydra's grammar would trip over
    folder = tmp_path / "maps (1, 2)"
    folder.mkdir()
    write_maps(folder)
    out = tmp_path / "run"
    maps = ["data.maps=[1]", "data.validation_maps=[2]"]
    assert train(*ANATOMY, *maps, f"data.labels={folder}", f"out={out}") == 0
    card = json.loads((out / "weights.json").read_text())
    assert card["steps"] == 2
    assert [each["file"] for each in card["materials"]["training"]] == ["head_01.nii.gz"]
    assert [each["file"] for each in card["materials"]["validation"]] == ["head_02.nii.gz"]
    assert all(len(each["sha256"]) == 64 for each in card["materials"]["training"])
    assert "(1, 2)" not in json.dumps(card)
    assert set(card["recipe"]["simulator"]["corruptions"]) >= {"erosion", "tissue_error"}


def test_labels_must_be_named(tmp_path, capsys):
    assert train(*ANATOMY, f"out={tmp_path / 'run'}") == 2
    assert "data.labels" in one_error(capsys)
    assert not (tmp_path / "run").exists()


def test_labels_must_be_there(tmp_path, capsys):
    folder = tmp_path / "none"
    assert train(*ANATOMY, f"data.labels={folder}", f"out={tmp_path / 'run'}") == 3
    assert f"{folder}: has no NIfTI file" in one_error(capsys)
    assert not (tmp_path / "run").exists()


def test_another_simulator_has_no_labels(tmp_path, capsys):
    wrong = ["simulator=mixture", f"data.labels={tmp_path}", f"out={tmp_path / 'run'}"]
    assert train(*ANATOMY, *wrong) == 2
    assert "write simulator=anatomy_mixture" in one_error(capsys)


def test_scenes_of_anatomy_are_simulated(tmp_path, capsys):
    write_maps(tmp_path, (1,))
    command = ["simulate", "simulator=anatomy", "n=1", "simulator.shape=[16,16,16]"]
    chosen = [f"simulator.sources.anatomy.labels={tmp_path}", "simulator.sources.anatomy.maps=null"]
    assert main([*command, *chosen, f"out={tmp_path / 'scenes'}"]) == 0
    assert {path.name for path in (tmp_path / "scenes" / "scene_000").iterdir()} >= set(FILES)
    assert main([*command, f"out={tmp_path / 'none'}"]) == 2
    assert "label maps" in one_error(capsys)
