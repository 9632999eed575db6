"""Shapes of masks: what a ball becomes, in mm and in voxels."""

import numpy as np
import pytest
import torch
from mask_shapes import GEOMETRY, ball, dice, distance

from qsmnet.mask import morphology

EDGES = GEOMETRY.voxel_size


def as_tensor(inside):
    return torch.from_numpy(np.ascontiguousarray(inside))


@pytest.mark.parametrize(("change", "radius"), [("eroded", 9.0), ("dilated", 15.0)])
def test_balls_shrink_and_grow_by_mm(change, radius):
    found = getattr(morphology, change)(ball(12).numpy(), 3.0, EDGES)
    assert dice(as_tensor(found), ball(radius)) > 0.95


def test_beyond_the_grid_is_outside():
    whole = np.ones((10, 10, 10), bool)
    assert morphology.eroded(whole, 1.5, (1.0, 1.0, 1.0)).sum() == 8**3
    assert morphology.dilated(whole, 3.0, EDGES).all()


def test_nothing_stays_nothing():
    nothing = np.zeros((9, 9, 9), bool)
    for change in (morphology.eroded, morphology.dilated, morphology.closed, morphology.opened):
        assert not change(nothing, 2.0, EDGES).any()
    assert not morphology.filled(nothing, 0.1).any()
    assert not morphology.largest_part(nothing).any()


def test_closing_only_adds_and_fills_bays_at_the_rim_of_the_grid():
    bitten = (ball(12) & ~ball(3, x=12)).numpy()
    closed = morphology.closed(bitten, 5.0, EDGES)
    assert (closed >= bitten).all()
    assert dice(as_tensor(closed), ball(12)) > dice(as_tensor(bitten), ball(12))
    whole = np.ones((10, 10, 10), bool)
    assert morphology.closed(whole, 4.0, EDGES).all()


def test_opening_only_takes_and_cuts_bridges():
    bridge = (distance(9) < 3).numpy() | (ball(1.5) | ball(1.5, x=2) | ball(1.5, x=4)).numpy()
    two = (ball(8, x=-8)).numpy() | bridge
    opened = morphology.opened(two, 3.5, EDGES)
    assert (opened <= two).all()
    assert not opened[ball(2, x=10).numpy()].any()
    assert opened[ball(5, x=-8).numpy()].all()


def test_holes_are_filled_up_to_a_size():
    body, small, large = ball(14), ball(3, x=-8), ball(5, x=4)
    holed = (body & ~small & ~large).numpy()
    assert (morphology.filled(holed) == body.numpy()).all()
    share = float(small.sum() / holed.sum())
    found = morphology.filled(holed, 1.1 * share)
    assert found[small.numpy()].all()
    assert not found[large.numpy()].any()
    assert (morphology.filled(holed, 0.9 * share) == holed).all()


def test_layers_of_voxels_ignore_their_size():
    cube = np.zeros((9, 9, 9), bool)
    cube[3:6, 3:6, 3:6] = True
    assert morphology.eroded_voxels(cube, 1).sum() == 1
    assert morphology.eroded_voxels(cube, 0) is cube
    assert morphology.dilated_voxels(cube, 1).sum() == 27 + 6 * 9
    assert morphology.dilated_voxels(cube, 0) is cube


def test_the_largest_part_stays():
    parts = (ball(8, x=-8) | ball(4, x=14)).numpy()
    assert (morphology.largest_part(parts) == ball(8, x=-8).numpy()).all()
