"""Voxel size and field direction from affines, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from qsmnet.geometry import Geometry

EDGES = st.tuples(*(st.floats(0.1, 5.0),) * 3)
ANGLES = st.tuples(*(st.floats(-180.0, 180.0),) * 3)


def affine_of(edges: tuple[float, float, float], rotation: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(edges)
    affine[:3, 3] = (12.0, -7.0, 3.0)
    return affine


@settings(deadline=None)
@given(EDGES, ANGLES)
def test_from_affine(edges: tuple[float, float, float], angles: tuple[float, float, float]) -> None:
    """Column norms, and world z seen from the voxel axes."""
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    geometry = Geometry.from_affine(affine_of(edges, rotation))
    assert geometry.voxel_size == pytest.approx(edges)
    assert geometry.b0_dir == pytest.approx(rotation.T @ [0, 0, 1], abs=1e-12)
    assert rotation @ geometry.b0_dir == pytest.approx([0, 0, 1], abs=1e-12)


@pytest.mark.parametrize(
    ("order", "b0_dir"), [((0, 1, 2), (0, 0, 1)), ((1, 2, 0), (0, 1, 0)), ((2, 0, 1), (1, 0, 0))]
)
def test_permuted_axes(order: tuple[int, int, int], b0_dir: tuple[int, int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * (-0.8, 1.2, 2.0))[:, order]
    geometry = Geometry.from_affine(affine)
    assert np.abs(geometry.b0_dir) == pytest.approx(b0_dir)
    assert geometry.voxel_size == pytest.approx(np.abs(affine[:3, :3]).sum(0))


def test_direction_is_normalised() -> None:
    geometry = Geometry((1.0, 1.0, 1.0), (3.0, 0.0, 4.0))
    assert geometry.b0_dir == pytest.approx((0.6, 0.0, 0.8))
    assert geometry.tilt_degrees == pytest.approx(math.degrees(math.acos(0.8)))


def test_is_hashable_and_compares_by_value() -> None:
    """Kernels are cached by it."""
    first, second = (Geometry((1.0, 1.0, 2.0), (0.0, 0.0, z)) for z in (1.0, 5.0))
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize(
    ("voxel_size", "b0_dir", "complaint"),
    [
        ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0), "outside"),
        ((1.0, 1.0, 1000.0), (0.0, 0.0, 1.0), "outside"),
        ((1.0, 1.0, math.nan), (0.0, 0.0, 1.0), "outside"),
        ((1.0, 1.0), (0.0, 0.0, 1.0), "three numbers"),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "no direction"),
        ((1.0, 1.0, 1.0), (0.0, 0.0, math.nan), "no direction"),
    ],
)
def test_refuses(voxel_size: tuple, b0_dir: tuple, complaint: str) -> None:
    # __new__ and __post_init__ bypass the shape checks of the annotations, as a config does
    geometry = object.__new__(Geometry)
    object.__setattr__(geometry, "voxel_size", voxel_size)
    object.__setattr__(geometry, "b0_dir", b0_dir)
    with pytest.raises(ValueError, match=complaint):
        geometry.__post_init__()


def test_refuses_singular_and_sheared_affines() -> None:
    singular, sheared = np.eye(4), np.eye(4)
    singular[0, 0] = 0.0
    sheared[0, 1] = 0.2
    for affine in (singular, sheared):
        with pytest.raises(ValueError, match="singular"):
            Geometry.from_affine(affine)
    with pytest.raises(ValueError, match="4x4"):
        Geometry.from_affine(np.eye(3))
