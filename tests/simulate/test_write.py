"""Scenes on disk, and the affine that carries voxel size and B0."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmnet.errors import OutputError
from qsmnet.geometry import Geometry
from qsmnet.io.nifti import read_volume
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.random_fields import RandomFields
from qsmnet.simulate.simulator import Simulator
from qsmnet.simulate.write import FILES, affine_of, write_scene

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


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0, -1, 0)])
def test_affine_of_directions_along_an_axis(b0_dir):
    geometry = Geometry((0.7, 0.8, 1.4), b0_dir)
    assert_same(Geometry.from_affine(affine_of(geometry, (8, 8, 8))), geometry)


@pytest.fixture(scope="module")
def scene():
    acquisition = Acquisition(voxel_size=(0.8, 0.9, 1.5), axial=0.0, noise_free=0.0)
    made = Simulator({"fields": RandomFields()}, acquisition=acquisition, shape=(12, 10, 14))
    return made.scene(1, 0)


def test_scene_is_read_back(scene, tmp_path):
    write_scene(tmp_path / "a", scene)
    assert {p.name for p in (tmp_path / "a").iterdir()} == set(FILES)
    for name in ("chi", "local_field", "local_field_exact", "noise", "mask", "segmentation"):
        volume = read_volume(tmp_path / "a" / f"{name}.nii.gz")
        assert np.array_equal(volume.data, getattr(scene, name).numpy())
        assert_same(volume.geometry, scene.geometry)


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
