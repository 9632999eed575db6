"""Scenes on disk, and the affine that carries voxel size and B0."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmnet.errors import OutputError, ResourceError
from qsmnet.geometry import Geometry
from qsmnet.io.nifti import read_volume
from qsmnet.simulate import write as write_module
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.random_fields import RandomFields
from qsmnet.simulate.simulator import Simulator
from qsmnet.simulate.write import FIELD_SUPPORT, FILES, affine_of, write_scene

component = st.floats(-1, 1)
direction = st.tuples(component, component, component).filter(lambda d: np.linalg.norm(d) > 0.1)
edge = st.floats(0.3, 3)


def assert_same(found, geometry):
    assert found.voxel_size == pytest.approx(geometry.voxel_size, rel=1e-5)
    assert found.b0_dir == pytest.approx(geometry.b0_dir, abs=1e-5)


@given(st.tuples(edge, edge, edge), direction)
@settings(max_examples=60, deadline=None)
def test_affine_carries_voxel_size_and_b0(voxel_size, b0_dir):
    geometry = Geometry(voxel_size, b0_dir)
    affine = affine_of(geometry, (8, 9, 10))
    assert_same(Geometry.from_affine(affine), geometry)
    assert np.linalg.det(affine[:3, :3]) > 0
    # the middle of the grid is the world's origin
    assert affine @ [3.5, 4, 4.5, 1] == pytest.approx([0, 0, 0, 1], abs=1e-9)


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (0, 0, -1), (0, 4e-5, -1), (1, 0, 0), (0, -1, 0)])
def test_affine_of_directions_along_an_axis(b0_dir):
    geometry = Geometry((0.7, 0.8, 1.4), b0_dir)
    assert_same(Geometry.from_affine(affine_of(geometry, (8, 8, 8))), geometry)


def simulated(**settings):
    given = {"voxel_size": (0.8, 0.9, 1.5), "axial": 0.0, "noise_free": 0.0, "unmasked": 0.0}
    acquisition = Acquisition(**given | settings)
    made = Simulator({"fields": RandomFields()}, acquisition=acquisition, shape=(12, 10, 14))
    return made.scene(1, 0)


@pytest.fixture(scope="module")
def scene():
    return simulated()


@pytest.fixture(scope="module")
def unmasked():
    return simulated(unmasked=1.0)


def test_scene_is_read_back(scene, tmp_path):
    write_scene(tmp_path / "a", scene)
    assert {p.name for p in (tmp_path / "a").iterdir()} == set(FILES)
    for name in ("chi", "local_field", "local_field_exact", "noise", "mask", "segmentation"):
        volume = read_volume(tmp_path / "a" / f"{name}.nii.gz")
        assert np.array_equal(volume.data, getattr(scene, name).numpy())
        assert_same(volume.geometry, scene.geometry)


def test_field_support_is_written_where_it_is_not_the_mask(scene, unmasked, tmp_path):
    write_scene(tmp_path / "a", unmasked)
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {*FILES, FIELD_SUPPORT}
    assert read_volume(tmp_path / "a" / FIELD_SUPPORT).data.all()
    known = [
        json.loads((write(tmp_path / name, each) / "scene.json").read_text())["field_known_on"]
        for name, each in (("b", scene), ("c", unmasked))
    ]
    assert known == ["mask", "field_support"]


def write(folder, scene, **settings):
    write_scene(folder, scene, **settings)
    return folder


def test_no_field_support_of_an_earlier_scene_is_left(scene, unmasked, tmp_path):
    write_scene(tmp_path, unmasked)
    write_scene(tmp_path, scene, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_field_support_of_someone_else_is_not_taken_along(scene, tmp_path):
    (tmp_path / FIELD_SUPPORT).write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_scene(tmp_path, scene)
    assert [path.name for path in tmp_path.iterdir()] == [FIELD_SUPPORT]


@pytest.mark.parametrize("kernel", ["prism", "sampled"])
def test_sidecar_says_which_kernel_made_the_field(kernel, tmp_path):
    folder = write(tmp_path, simulated(kernel=kernel))
    assert json.loads((folder / "scene.json").read_text())["kernel"] == kernel


@pytest.mark.gpu
def test_a_scene_on_a_gpu_is_written(scene, tmp_path):
    moved = {
        name: value.cuda() for name, value in vars(scene).items() if isinstance(value, torch.Tensor)
    }
    write_scene(tmp_path, replace(scene, **moved))
    assert np.array_equal(read_volume(tmp_path / "chi.nii.gz").data, scene.chi.numpy())


def test_sidecar_holds_record_and_units(scene, tmp_path):
    write_scene(tmp_path, scene)
    sidecar = json.loads((tmp_path / "scene.json").read_text())
    assert sidecar["record"] == scene.record
    assert sidecar["units"]["chi"] == "ppm"
    assert sidecar["labels"]["8"] == "white matter"


def test_nothing_is_replaced_unasked(scene, tmp_path):
    write_scene(tmp_path, scene)
    with pytest.raises(OutputError, match="exists already"):
        write_scene(tmp_path, scene)
    write_scene(tmp_path, scene, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_write_that_fails_leaves_what_was_there(scene, tmp_path, monkeypatch, overwrite):
    if overwrite:
        write_scene(tmp_path / "a", scene)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    usual, written = write_module.write_volume, []

    def failing(path, *args, **settings):
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(path, *args, **settings)

    monkeypatch.setattr(write_module, "write_volume", failing)
    with pytest.raises(ResourceError, match="no space left"):
        write_scene(tmp_path / "a", scene, overwrite)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert (tmp_path / "a").exists() == overwrite
