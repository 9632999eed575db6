"""Partial volume on voxels of any proportions, against counting points."""

import math

import numpy as np
import pytest
import torch

from qsmnet.simulate.brain import Brain, BrainCanvas
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.randomness import random_rotation
from qsmnet.simulate.shapes import cuboid, ellipsoid

THICK = Grid((44, 44, 14), (0.5, 0.5, 2.0))
UNEQUAL = Grid((12, 14, 16), (0.9, 1.3, 2.1))
TURNED = torch.tensor(random_rotation(np.random.default_rng(3)))
CENTRE = torch.tensor([0.13, -0.21, 0.37]).reshape(3, 1, 1, 1)


def plane(points, normal=(1.0, 2.0, 3.0)):
    direction = torch.tensor(normal) / math.hypot(*normal)
    return torch.einsum("i,ixyz->xyz", direction, points - CENTRE)


def sphere(points):
    return ellipsoid(points - CENTRE, (6.0, 6.0, 6.0))


def tilted_cuboid(points):
    return cuboid(torch.einsum("ij,jxyz->ixyz", TURNED, points - CENTRE), (7.0, 6.0, 8.0))


def counted_share(solid, grid):
    """Share of each voxel inside, of 6 x 6 x 24 points in it."""
    counts = (6, 6, 24)
    finer = Grid(counts, tuple(d / n for d, n in zip(grid.voxel_size, counts, strict=True)))
    points = grid.points()
    share = torch.zeros(grid.shape)
    for offset in finer.points().reshape(3, -1).T:
        share += solid(points + offset.reshape(3, 1, 1, 1)) < 0
    return share / math.prod(counts)


# the edges of the cuboid, where a voxel has two surfaces or three, have no ramp
@pytest.mark.parametrize(
    ("solid", "largest"), [(sphere, 0.03), (plane, 0.01), (tilted_cuboid, 0.06)]
)
def test_share_of_a_thick_voxel_is_the_counted_one(solid, largest):
    expected = counted_share(solid, THICK)
    on_surface = (expected > 0) & (expected < 1)
    error = (THICK.coverage(solid(THICK.points())) - expected)[on_surface]
    assert float(error.square().mean().sqrt()) < largest


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 0, 1), (0, 1, -1), (-0.2, 0.5, 0.8)])
def test_ramp_is_as_wide_as_the_voxel_along_the_normal(normal):
    expected = math.hypot(*(n * d for n, d in zip(normal, UNEQUAL.voxel_size, strict=True)))
    distance = plane(UNEQUAL.points(), tuple(float(n) for n in normal))
    # whatever the unit of the distance
    for scale in (1.0, 0.3):
        ramp = UNEQUAL.ramp(scale * distance)
        assert torch.allclose(ramp, torch.tensor(expected / math.hypot(*normal)), rtol=1e-3)


def test_cubic_voxels_need_no_normal():
    grid = Grid((9, 8, 7), (0.7, 0.7, 0.7))
    distance = sphere(grid.points())
    assert grid.ramp(distance) == pytest.approx(0.7)
    expected = (0.5 - distance / (grid.edge * 1.3)).clamp(0, 1)
    assert torch.equal(grid.coverage(distance, 1.3), expected)


def test_nearly_cubic_voxels_are_nearly_as_cubic_ones():
    cubic, nearly = (Grid((20, 20, 20), (1.0, 1.0, z)) for z in (1.0, 1.0001))
    distance = sphere(cubic.points())
    assert torch.allclose(cubic.coverage(distance), nearly.coverage(distance), atol=1e-3)


def test_a_distance_without_direction_ramps_over_the_mean_edge():
    ramp = UNEQUAL.ramp(torch.full(UNEQUAL.shape, -3.0))
    assert torch.allclose(ramp, torch.tensor(UNEQUAL.edge))


@pytest.mark.parametrize("shape", [(1, 5, 6), (1, 1, 1), (0, 4, 5), (0, 0, 0)])
def test_blocks_of_few_voxels(shape):
    coverage = UNEQUAL.coverage(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert coverage.shape == shape
    assert coverage.isfinite().all()


def test_brains_cover_voxels_as_solids_do():
    record = Brain().draw(np.random.default_rng(0), UNEQUAL)
    canvas, distance = BrainCanvas(record, UNEQUAL), sphere(UNEQUAL.points())
    found = canvas.coverage(distance / record["placement"]["scale"])
    assert torch.allclose(found, UNEQUAL.coverage(distance, record["softness"]), atol=1e-5)


@pytest.mark.parametrize("voxel_size", [(0.5, 0.5, 2.0), (1.0, 1.0, 1.0), (0.4, 0.4, 3.0)])
def test_margin_holds_the_widest_ramp(voxel_size):
    grid = Grid((16, 16, 16), voxel_size)
    beyond = plane(grid.points(), (0.0, 0.0, 1.0)) + grid.margin
    assert not grid.coverage(beyond, 2.0)[beyond >= grid.margin].any()
