"""``qsmnet simulate``: files, seeds, and what it refuses."""

import json

import numpy as np
import pytest

from qsmnet.cli import main
from qsmnet.io.nifti import read_volume
from qsmnet.simulate.head.write import HEAD_FILES
from qsmnet.simulate.write import FIELD_SUPPORT, FILES

SMALL = "simulator.shape=[16,18,14]"


def simulate(folder, *settings):
    return main(["simulate", f"out={folder}", SMALL, *settings])


def content(folder):
    files = [path for path in folder.rglob("*") if path.suffix in (".gz", ".json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "heads"
    assert simulate(folder, "n=2", "seed=3") == 0
    return folder


def test_every_file_is_there_and_readable(scenes):
    names = {str(path.relative_to(scenes)) for path in scenes.rglob("*") if path.is_file()}
    expected = {f"scene_{i:03d}/{file}" for i in range(2) for file in FILES}
    assert names == expected | {"contact_sheet.png"}
    for path in scenes.rglob("*.nii.gz"):
        volume = read_volume(path)
        assert volume.data.shape == (16, 18, 14)
        assert np.isfinite(volume.data).all()
    assert (scenes / "contact_sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_record_is_that_of_the_request(scenes):
    records = [
        json.loads((scenes / f"scene_{i:03d}/scene.json").read_text())["record"] for i in range(2)
    ]
    assert [(r["seed"], r["split"], r["index"]) for r in records] == [
        (3, "test", 0),
        (3, "test", 1),
    ]


def test_same_seed_same_bytes(scenes, tmp_path):
    assert simulate(tmp_path / "a", "n=1", "seed=3") == 0
    again = content(tmp_path / "a")
    expected = content(scenes)
    assert len(again) == len(FILES)
    assert all(expected[name] == data for name, data in again.items())


@pytest.mark.parametrize("change", ["seed=4", "split=other"])
def test_another_seed_or_split_is_another_scene(scenes, tmp_path, change):
    assert simulate(tmp_path / "a", "n=1", "seed=3", change) == 0
    name = "scene_000/chi.nii.gz"
    assert content(tmp_path / "a")[name] != content(scenes)[name]


def test_simulator_and_its_parameters_are_chosen(tmp_path):
    voxel = "simulator.acquisition.voxel_size=[0.7,0.7,1.4]"
    b0 = "simulator.acquisition.b0_dir=[0,0.5,0.866]"
    assert simulate(tmp_path / "a", "n=1", "simulator=fields", voxel, b0) == 0
    geometry = read_volume(tmp_path / "a/scene_000/chi.nii.gz").geometry
    assert geometry.voxel_size == pytest.approx((0.7, 0.7, 1.4), rel=1e-5)
    assert geometry.b0_dir == pytest.approx((0, 0.5, 0.866), abs=1e-3)


def test_unmasked_scene_has_its_field_support(tmp_path):
    unmasked = "simulator.acquisition.unmasked=1"
    assert simulate(tmp_path / "a", "n=1", "simulator=fields", unmasked) == 0
    scene = tmp_path / "a/scene_000"
    assert {path.name for path in scene.iterdir()} == {*FILES, FIELD_SUPPORT}
    assert json.loads((scene / "scene.json").read_text())["kernel"] == "prism"
    # as it was made: the field is reconstructed where it is known
    support = read_volume(scene / FIELD_SUPPORT).data
    outside = read_volume(scene / "mask.nii.gz").data == 0
    assert support.all()
    assert read_volume(scene / "local_field.nii.gz").data[outside].any()


def test_nothing_is_overwritten_unasked(scenes, capsys):
    before = content(scenes)
    assert simulate(scenes, "n=2", "seed=4") == 8
    assert content(scenes) == before
    assert "exists already" in capsys.readouterr().err


def test_one_leftover_file_stops_the_whole(tmp_path):
    (tmp_path / "scene_001").mkdir()
    (tmp_path / "scene_001/mask.nii.gz").write_text("mine")
    assert simulate(tmp_path, "n=2") == 8
    assert [p.name for p in tmp_path.iterdir()] == ["scene_001"]


def test_overwrite(tmp_path):
    assert simulate(tmp_path, "n=1") == 0
    before = content(tmp_path)
    assert simulate(tmp_path, "n=1", "seed=9", "overwrite=true") == 0
    assert content(tmp_path).keys() == before.keys()
    assert content(tmp_path) != before


@pytest.mark.parametrize(
    "setting",
    [
        "n=0",
        "n=x",
        "simulator=heads",
        "simulator.shapes=[8,8,8]",
        "simulator.shape=[8,8]",
        "+nonsense",
        "simulator.sources.brain._target_=os.system",
        "simulator.sources.brain._target_=qsmnet.io.files.os.system",
    ],
)
def test_wrong_settings_are_one_line_and_write_nothing(tmp_path, capsys, setting):
    assert simulate(tmp_path / "a", setting) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("qsmnet: error: ")
    assert "\n" not in error
    assert not (tmp_path / "a").exists()


def test_output_folder_is_needed(capsys):
    assert main(["simulate", "n=1"]) == 2
    assert "out" in capsys.readouterr().err


def test_help(capsys):
    assert main(["simulate", "--help"]) == 0
    assert "example: qsmnet simulate" in capsys.readouterr().out


HEAD = (
    "simulator=head",
    "simulator.protocol.shape=[30,40,32]",
    "simulator.protocol.voxel_size=[6,6,6]",
    "simulator.factor=1",
)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    assert main(["simulate", f"out={folder}", "n=1", *HEAD]) == 0
    return folder / "scene_000"


def test_head_is_written_with_its_truth(head):
    assert {path.name for path in head.iterdir()} == set(HEAD_FILES)
    for path in head.glob("*.nii.gz"):
        echoes = path.name in {"phase.nii.gz", "magnitude.nii.gz", "unwrapped_phase.nii.gz"}
        data = read_volume(path, 4 if echoes else 3).data
        assert data.shape == ((4, 30, 40, 32) if echoes else (30, 40, 32))
        assert np.isfinite(data).all()
    sidecar = json.loads((head / "scan.json").read_text())
    assert sidecar["b0_tesla"] == 3.0
    assert sidecar["echo_times_s"] == [0.004, 0.010, 0.016, 0.022]
    assert sidecar["units"]["phase"] == "rad"
    assert (head.parent / "contact_sheet.png").exists()


def test_head_is_reconstructed(head, tmp_path):
    sidecar = json.loads((head / "scan.json").read_text())
    times = [str(time) for time in sidecar["echo_times_s"]]
    scan = ["--phase", f"{head}/phase.nii.gz", "--magnitude", f"{head}/magnitude.nii.gz"]
    scan += ["--echo-times", *times, "--b0", str(sidecar["b0_tesla"])]
    mask = ["--mask", f"{head}/mask.nii.gz", "--inverter", "tkd"]
    assert main(["reconstruct", *scan, *mask, "--out", str(tmp_path / "a")]) == 0
    field = ["--local-field", f"{head}/local_field.nii.gz", "--noise", "0.001"]
    assert main(["reconstruct", *field, *mask, "--out", str(tmp_path / "b")]) == 0
    inside = read_volume(head / "mask.nii.gz").data > 0
    truth = read_volume(head / "chi.nii.gz").data[inside]
    for folder, least in (("a", 0.2), ("b", 0.6)):
        found = read_volume(tmp_path / folder / "chi.nii.gz").data[inside]
        assert np.corrcoef(found, truth)[0, 1] > least


@pytest.mark.parametrize(
    "setting",
    [
        "simulator.labels=nowhere",
        "simulator.lesions=[{chi: 1, radius: 0}]",
        "simulator.lesions=[{chi: 1}]",
        "simulator.protocol.echo_times=[0.01,0.005]",
        "simulator.table={0: cheese}",
    ],
)
def test_wrong_settings_of_a_head_are_one_line(tmp_path, capsys, setting):
    extra = ["simulator.labels=."] if "table" in setting else []
    assert main(["simulate", f"out={tmp_path / 'a'}", *HEAD, *extra, setting]) in {2, 3}
    error = capsys.readouterr().err.strip()
    assert error.startswith("qsmnet: error: ")
    assert "\n" not in error
    assert not (tmp_path / "a").exists()
