"""``qsmnet simulate``: files, seeds, and what it refuses."""

import errno
import json
import sys

import numpy as np
import pytest

from qsmnet.cli import main
from qsmnet.io.nifti import read_volume
from qsmnet.simulate import write
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
        "simulator.sources.brain.whole=abc",
        "simulator.sources.brain.margin=[0,0]",
        "simulator.acquisition=null",
        "simulator.shape=[32,32,32.5]",
        "simulator.shape=8",
        "simulator.weights={brain:0}",
        "+simulator.device=abacus",
        "simulator.acquisition.voxel_size=[0,1,1]",
        "simulator.acquisition.voxel_size=[1,1]",
        "simulator.acquisition.voxel_size=[-1,1,1]",
        "simulator.acquisition.voxel_size=[1,1,20]",
        "simulator.acquisition.voxel_size=1",
        "simulator.acquisition.voxel_size=[a,b,c]",
        "simulator.acquisition.b0_dir=[0,0,0]",
        "simulator.acquisition.b0_dir=[0,0,nan]",
        "simulator.acquisition.noise=[-1,0.1]",
        "simulator.acquisition.noise=[0.1,0.001]",
        "simulator.acquisition.noise=[0,0]",
        "simulator.acquisition.noise=0.002",
        "simulator.acquisition.tilt=-5",
        "simulator.acquisition.tilt=abc",
        "simulator.acquisition.axial=1.5",
        "simulator.acquisition.padding=0",
        "simulator.acquisition.kernel=cube",
        "overwrite=no",
        "overwrite=1",
        "overwrite=null",
        "seed=-1",
        "--overwrite",
    ],
)
def test_wrong_settings_are_one_line_and_write_nothing(tmp_path, capsys, setting):
    assert simulate(tmp_path / "a", setting) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("qsmnet: error: ")
    assert "\n" not in error
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("out", [[], ["out="], ["out=null"], ["out=' '"]])
def test_output_folder_is_needed(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "n=1", *out]) == 2
    assert "out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["overwrite=no", "overwrite='true'"])
def test_only_true_overwrites(scenes, setting):
    before = content(scenes)
    assert simulate(scenes, "n=2", "seed=4", setting) == 2
    assert content(scenes) == before


def test_refusal_to_overwrite_names_the_setting(scenes, capsys):
    assert simulate(scenes, "n=2") == 8
    assert "overwrite=true" in capsys.readouterr().err


class FullDisk:
    """Fails at one write, as a full disk does."""

    def __init__(self, usual, at):
        self.usual, self.left = usual, at

    def __call__(self, path, *args, **settings):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return self.usual(path, *args, **settings)


def test_a_full_disk_leaves_whole_scenes_alone(tmp_path, monkeypatch, capsys):
    full = FullDisk(write.write_volume, at=10)
    monkeypatch.setattr(write, "write_volume", full)
    assert simulate(tmp_path / "a", "n=2") == 7
    assert "no space left" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["scene_000"]
    assert {path.name for path in (tmp_path / "a" / "scene_000").iterdir()} == set(FILES)


def test_a_full_disk_leaves_nothing_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "write_volume", FullDisk(write.write_volume, at=3))
    assert simulate(tmp_path / "a", "n=2") == 7
    assert not list(tmp_path.iterdir())


def test_sweep_stops_at_a_failure_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "-m", "out=a", SMALL, "n=0,1"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("qsmnet: error: n: ")
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "-m", "out=a${seed}", SMALL, "n=1", "seed=1,2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a1", "a2"]
    assert main(["simulate", "seed=1", SMALL, "n=1", "out=b,c", "--multirun"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a1", "a2", "b", "c"]


@pytest.mark.parametrize(
    "name",
    ["zü=(a)", "a,b", "it's", 'say "x"', "a b", "[x]", "1e3", "back\\slash", "{y}:", "null2"],
)
@pytest.mark.parametrize("sign", ["", "++"])
def test_any_folder_can_be_named(tmp_path, monkeypatch, name, sign):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", f"{sign}out={name}", SMALL, "n=1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("quoted", ["'a b'", '"a b"'])
def test_a_path_that_is_quoted_already_stays_so(tmp_path, monkeypatch, quoted):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", f"out={quoted}", SMALL, "n=1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a b"]


def test_other_values_are_to_be_quoted(tmp_path, capsys):
    assert simulate(tmp_path / "a", "split=a=b") == 2
    assert "'key=\"value\"'" in capsys.readouterr().err


OWN = """
from dataclasses import dataclass
from os import system
from qsmnet.simulate.primitives import Primitives

@dataclass(frozen=True)
class Few(Primitives):
    count: tuple = (2, 4)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a simulator of one's own; named anew for each test, as modules are kept."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / "mine" / "simulator").mkdir(parents=True)
    (tmp_path / "mine" / f"{name}.py").write_text(OWN)

    def configured(target):
        (tmp_path / "mine" / "simulator" / "few.yaml").write_text(
            "defaults:\n  - primitives\n"
            f"sources:\n  primitives:\n    _target_: {target.format(name)}\n"
        )
        return ["--config-dir", str(tmp_path / "mine"), "simulator=few", "n=1"]

    return configured


def test_a_simulator_of_one_s_own_is_used(own, tmp_path):
    assert simulate(tmp_path / "a", *own("{}.Few")) == 0
    record = json.loads((tmp_path / "a" / "scene_000" / "scene.json").read_text())["record"]
    assert len(record["phantom"]["solids"]) in (2, 3)


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "no_such_module.Few"])
def test_code_from_elsewhere_is_refused(own, tmp_path, capsys, target):
    assert simulate(tmp_path / "a", *own(target)) == 2
    assert f"names the target '{target}'" in capsys.readouterr().err


def test_own_code_needs_its_folder_named(own, tmp_path, capsys):
    option, folder, *settings = own("{}.Few")
    assert simulate(tmp_path / "a", option, folder, *settings) == 0
    target = f"simulator.sources.brain._target_=own_{tmp_path.name}.Few".replace("-", "_")
    assert simulate(tmp_path / "b", target) == 2
    assert "--config-dir" in capsys.readouterr().err


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
