"""Masks of objects without one, and their erosion."""

import numpy as np
import pytest
import torch

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.masks import draw_blob_mask, erode, render_blob_mask

GRID = Grid((24, 28, 20), (1.0, 0.8, 1.4))


@pytest.mark.parametrize("seed", range(5))
def test_blob_is_an_object_in_the_middle_of_the_grid(seed):
    record = draw_blob_mask(np.random.default_rng(seed), GRID)
    mask = render_blob_mask(record, GRID)
    assert 10 <= len(record["centres"]) <= 25
    assert 0.02 < float(mask.float().mean()) < 0.9
    # each Gaussian exceeds the level in its own middle
    nearest = [
        tuple(int((GRID.axis(i) - c).abs().argmin()) for i, c in enumerate(centre))
        for centre in record["centres"]
    ]
    assert all(bool(mask[index]) for index in nearest)


def test_blob_is_the_same_object_on_another_grid():
    record = draw_blob_mask(np.random.default_rng(1), GRID)
    finer = Grid((48, 56, 40), (0.5, 0.4, 0.7))
    shares = [float(render_blob_mask(record, grid).float().mean()) for grid in (GRID, finer)]
    assert shares[0] == pytest.approx(shares[1], rel=0.05)


@pytest.mark.parametrize("voxels", [0, 1, 2, 3])
def test_erosion_takes_layers(voxels):
    mask = torch.zeros(16, 16, 16, dtype=torch.bool)
    mask[4:13, 3:14, 4:12] = True
    expected = torch.zeros_like(mask)
    expected[4 + voxels : 13 - voxels, 3 + voxels : 14 - voxels, 4 + voxels : 12 - voxels] = True
    assert torch.equal(erode(mask, voxels), expected)


def test_erosion_leaves_the_edge_of_the_grid():
    mask = torch.ones(10, 10, 10, dtype=torch.bool)
    assert erode(mask, 2).all()
    mask[0] = False
    assert torch.equal(erode(mask, 2)[:3].any(), torch.tensor(False))
    assert erode(mask, 2)[3:].all()
