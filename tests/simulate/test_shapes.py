"""Signed distances against what they are by hand."""

import math

import numpy as np
import pytest
import torch

from qsmnet.simulate.shapes import SOLIDS, capsule, cuboid, cylinder, ellipsoid, shell

RADII = (5.0, 4.0, 3.0)


def at(*points):
    """Points as ``(3, n, 1, 1)``."""
    return torch.tensor(points, dtype=torch.float32).T.reshape(3, -1, 1, 1)


def distances(shape, *points, **kwargs):
    return shape(at(*points), **kwargs).ravel().tolist()


def random_points(n=400, reach=9.0):
    return torch.from_numpy(np.random.default_rng(0).uniform(-reach, reach, (3, n, 1, 1))).float()


@pytest.mark.parametrize("name", ["ellipsoid", "cuboid", "cylinder"])
def test_negative_inside_positive_outside(name):
    inside, beside, outside = distances(SOLIDS[name], (0, 0, 0), (2, 1, 1), (9, 9, 9), radii=RADII)
    assert inside < beside < 0 < outside


def test_sphere_is_exact_everywhere():
    points = random_points()
    exact = points.square().sum(0).sqrt() - 4
    assert torch.allclose(ellipsoid(points, (4.0, 4.0, 4.0)), exact, atol=1e-4)


def test_centre_of_an_ellipsoid_is_the_least_radius_deep():
    assert distances(ellipsoid, (0, 0, 0), radii=RADII) == [-3.0]


def test_ellipsoid_is_zero_on_its_surface_and_has_unit_slope_there():
    directions = torch.nn.functional.normalize(random_points(), dim=0)
    radii = torch.tensor(RADII).reshape(3, 1, 1, 1)
    surface = directions * radii
    normal = torch.nn.functional.normalize(surface / radii**2, dim=0)
    assert ellipsoid(surface, RADII).abs().max() < 1e-4
    for step in (-0.1, 0.1):
        assert torch.allclose(
            ellipsoid(surface + step * normal, RADII), torch.tensor(step), atol=0.01
        )


def test_cuboid_is_exact():
    found = distances(cuboid, (0, 0, 0), (4, 0, 0), (8, 0, 0), (8, 8, 3), (8, 8, 7), radii=RADII)
    assert found == pytest.approx([-3, -1, 3, 5, math.sqrt(41)])


def test_cylinder_is_exact():
    points = [(0, 0, 0), (0, 4, 0), (0, 9, 0), (0, 0, 7), (3, 4, 2), (0, 8, 7)]
    assert distances(cylinder, *points, radii=RADII) == pytest.approx([-3, -1, 4, 4, 0, 5])


def test_shell_is_hollow():
    # a quarter of the least radius thick, below the surface
    found = distances(
        shell, (0, 0, 0), (4, 0, 0), (3.5, 0, 0), (3, 0, 0), (6, 0, 0), radii=(4.0, 4.0, 4.0)
    )
    assert found == pytest.approx([3, 0, -0.5, 0, 2])


def test_capsule_is_a_tube_with_round_ends():
    points = [(1, 0, 0), (1, 3, 0), (-4, 0, 0), (7, 0, 0), (7, 4, 3)]
    found = distances(capsule, *points, start=[0.0, 0, 0], stop=[4.0, 0, 0], radius=1.0)
    assert found == pytest.approx([-1, 2, 3, 2, math.sqrt(34) - 1])


def test_capsule_of_no_length_is_a_ball():
    found = distances(capsule, (0, 0, 0), (0, 3, 4), start=[0.0] * 3, stop=[0.0] * 3, radius=2.0)
    assert found == pytest.approx([-2, 3])
