"""Differences, their adjoint and their spectrum."""

import pytest
import torch

from qsmnet.inversion.gradient import (
    add_adjoint,
    difference,
    edges_inside,
    laplacian_spectrum,
)

SHAPE = (6, 7, 8)
VOXEL = (0.7, 1.1, 1.6)


def volume(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("axis", range(3))
def test_adjoint(axis):
    x, y = volume(0), volume(1)
    forward = (difference(x, axis) * y).sum()
    adjoint = torch.zeros_like(x)
    add_adjoint(adjoint, y, axis)
    backward = (x * adjoint).sum()
    assert float((forward - backward).abs()) < 1e-12 * float(forward.abs() + 1)


@pytest.mark.parametrize("planes", [1, 2, 4, 6])
@pytest.mark.parametrize("axis", range(3))
def test_slabs_make_up_the_whole(axis, planes):
    x, y = volume(0), volume(1)
    pieces, total, whole = [], volume(2), volume(2)
    for start in range(0, SHAPE[0], planes):
        slab = slice(start, min(start + planes, SHAPE[0]))
        pieces.append(difference(x, axis, slab=slab))
        add_adjoint(total, y[slab], axis, 0.7, slab)
    add_adjoint(whole, y, axis, 0.7)
    assert torch.equal(torch.cat(pieces), difference(x, axis))
    torch.testing.assert_close(total, whole, rtol=1e-14, atol=1e-14)


def test_spectrum_is_that_of_the_differences():
    x = volume(0)
    applied = torch.zeros_like(x)
    for axis, edge in enumerate(VOXEL):
        add_adjoint(applied, difference(x, axis), axis, 1 / edge**2)
    spectrum = laplacian_spectrum(SHAPE, VOXEL, torch.float64)
    filtered = torch.fft.irfftn(torch.fft.rfftn(x) * spectrum, s=SHAPE)
    torch.testing.assert_close(filtered, applied, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_edges_count_inside_alone(axis):
    support = torch.zeros(SHAPE)
    support[2:5, 2:5, 2:5] = 1
    assert float(edges_inside(support, axis).sum()) == 2 * 3 * 3
    # nothing wraps around
    assert float(edges_inside(torch.ones(SHAPE), axis).select(axis, -1).sum()) == 0
