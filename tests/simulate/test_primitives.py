"""Solids on a grid: volumes, partial volume, painting order."""

import math

import numpy as np
import pytest
import torch

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.primitives import Primitives
from qsmnet.simulate.randomness import random_rotation

ISOTROPIC = Grid((48, 48, 48), (1.0, 1.0, 1.0))
ANISOTROPIC = Grid((54, 48, 30), (0.9, 1.0, 1.6))
TURNED = random_rotation(np.random.default_rng(3))
STRAIGHT = np.eye(3).tolist()
VOLUMES = {
    "ellipsoid": ((14.0, 11.0, 9.0), 4 / 3 * math.pi * 14 * 11 * 9),
    "cuboid": ((12.0, 9.0, 10.0), 8 * 12 * 9 * 10),
    "cylinder": ((9.0, 9.0, 12.0), math.pi * 9**2 * 24),
    # a quarter of the radius thick
    "shell": ((16.0, 16.0, 16.0), 4 / 3 * math.pi * (16**3 - 12**3)),
}


def solid(**changes):
    base = {
        "kind": "cuboid",
        "centre": [0.0, 0.0, 0.0],
        "radii": [5.0, 5.0, 5.0],
        "rotation": STRAIGHT,
        "chi": 0.3,
        "added": False,
        "softness": 1.0,
    }
    return base | changes


def render(grid, *solids):
    return Primitives().render({"solids": list(solids), "mask": None}, grid)


@pytest.mark.parametrize("grid", [ISOTROPIC, ANISOTROPIC], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("rotation", [STRAIGHT, TURNED], ids=["straight", "turned"])
@pytest.mark.parametrize("kind", VOLUMES)
def test_volume_is_the_analytic_one(kind, rotation, grid):
    radii, expected = VOLUMES[kind]
    chi = render(grid, solid(kind=kind, radii=list(radii), rotation=rotation, chi=2.0)).chi
    found = float(chi.double().sum()) / 2 * math.prod(grid.voxel_size)
    assert found == pytest.approx(expected, rel=0.03)


def test_voxel_on_the_surface_holds_its_share():
    # voxel centres lie at 0.5, 1.5, ...; a face at 5.3 covers 0.3 of the voxel from 5 to 6
    grid = Grid((16, 16, 16), (1.0, 1.0, 1.0))
    line = render(grid, solid(radii=[5.3, 5.3, 5.3], chi=1.0)).chi[:, 8, 8]
    assert line[8:].tolist() == pytest.approx([1, 1, 1, 1, 1, 0.3, 0, 0], abs=1e-5)
    assert torch.allclose(line, line.flip(0))


def test_soft_edges_are_wider_and_keep_the_volume():
    large = [12.0, 12.0, 12.0]
    hard, soft = (render(ISOTROPIC, solid(softness=s, radii=large)).chi for s in (1.0, 2.0))
    assert float(soft.sum()) == pytest.approx(float(hard.sum()), rel=0.02)
    partly = [((chi > 0.001) & (chi < 0.299)).sum() for chi in (hard, soft)]
    assert partly[1] > 1.5 * partly[0]


def test_solids_cover_or_add_in_order():
    grid = Grid((16, 16, 16), (1.0, 1.0, 1.0))
    first, small = solid(chi=0.3), [2.0, 2.0, 2.0]
    covered = render(grid, first, solid(chi=-0.1, radii=small)).chi
    added = render(grid, first, solid(chi=-0.1, radii=small, added=True)).chi
    assert float(covered[8, 8, 8]) == pytest.approx(-0.1)
    assert float(added[8, 8, 8]) == pytest.approx(0.2)
    assert float(covered[8, 8, 4]) == float(added[8, 8, 4]) == pytest.approx(0.3)


def test_bounding_box_cuts_nothing():
    # each solid is drawn in its box only; one that covers the grid shows a cut
    grid = Grid((20, 22, 24), (1.0, 1.3, 0.8))
    centre = [3.0, -4.0, 2.0]
    for kind in VOLUMES:
        record = solid(kind=kind, centre=centre, radii=[4.0, 3.0, 5.0], rotation=TURNED)
        chi = render(grid, record).chi
        larger = Grid((60, 62, 64), grid.voxel_size)
        assert torch.allclose(chi, render(larger, record).chi[20:40, 20:42, 20:44], atol=1e-5)


def test_a_solid_outside_of_the_grid_leaves_no_trace():
    grid = Grid((16, 16, 16), (1.0, 1.0, 1.0))
    assert not render(grid, solid(centre=[40.0, 0.0, 0.0])).chi.any()


def test_draw_keeps_its_ranges():
    source, grid = Primitives(count=(5, 9), size=(2.0, 6.0)), Grid((40, 40, 40), (1.0, 1.0, 1.0))
    for seed in range(10):
        record = source.draw(np.random.default_rng(seed), grid)
        assert 5 <= len(record["solids"]) < 9
        for each in record["solids"]:
            assert each["kind"] in VOLUMES
            assert 1 <= min(each["radii"]) <= max(each["radii"]) <= 6
            assert max(abs(c) for c in each["centre"]) <= 0.45 * 40


def test_some_phantoms_fill_the_grid():
    source, grid = Primitives(count=(1, 2), unmasked=0.5), Grid((12, 12, 12), (1.0, 1.0, 1.0))
    records = [source.draw(np.random.default_rng(seed), grid) for seed in range(60)]
    whole = [record for record in records if record["mask"] is None]
    assert 15 <= len(whole) <= 45
    assert source.render(whole[0], grid).mask.all()
