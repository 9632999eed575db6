"""From the fine grid to the scan's: where samples lie, and what is kept."""

import pytest
import torch

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.kspace import (
    box_average,
    crop_spectrum_along,
    fine_grid,
    interpolate,
    slabs,
)

GRID = Grid((12, 15, 14), (1.0, 1.3, 2.0), centre=(3.0, -2.0, 5.0))
FACTORS = [1, 2, 3]


def cropped(volume, factor):
    volume = volume.to(torch.complex64)
    for axis in (-1, -2, -3):
        volume = crop_spectrum_along(volume, axis, factor)
    return volume


def wave(grid, turns, reference=GRID):
    """A plane wave of ``turns`` whole turns over the field of view, as a function of space."""
    phase = torch.zeros(grid.shape)
    for axis, (n, extent) in enumerate(zip(turns, reference.extent, strict=True)):
        along = 2 * torch.pi * n * grid.axis(axis) / extent
        phase += along.reshape([-1 if other == axis else 1 for other in range(3)])
    return torch.polar(torch.ones_like(phase), phase)


@pytest.mark.parametrize("factor", FACTORS)
def test_samples_of_the_scan_are_samples_of_the_fine_grid(factor):
    fine = fine_grid(GRID, factor)
    for axis in range(3):
        assert fine.axis(axis)[::factor] == pytest.approx(GRID.axis(axis), abs=1e-5)
        assert fine.extent[axis] == pytest.approx(GRID.extent[axis])


def test_a_taller_grid_ends_where_the_other_does():
    tall, fine = fine_grid(GRID, 2, below=4), fine_grid(GRID, 2)
    assert tall.shape == (24, 30, 36)
    assert tall.axis(2)[8:] == pytest.approx(fine.axis(2), abs=1e-5)
    assert tall.axis(0) == pytest.approx(fine.axis(0))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("turns", [(0, 0, 0), (1, 0, 0), (3, -4, 2), (-5, 7, -6)])
def test_cut_spectrum_keeps_waves_in_place(factor, turns):
    # the phase of a wave is its position: an error of 0.01 voxel would be 0.01 rad and more
    found = cropped(wave(fine_grid(GRID, factor), turns), factor)
    error = (found * wave(GRID, turns).conj()).angle().abs().max()
    assert float(error) < 2e-5 * max(1, *map(abs, turns))
    assert found.abs() == pytest.approx(torch.ones(GRID.shape), abs=1e-4)


@pytest.mark.parametrize("factor", [2, 3])
def test_cut_spectrum_drops_what_the_scan_cannot_sample(factor):
    found = cropped(wave(fine_grid(GRID, factor), (8, 0, 0)), factor)
    assert float(found.abs().max()) < 1e-4


def blob(grid, middle):
    points = grid.points()
    distance = (points - torch.tensor(middle).reshape(3, 1, 1, 1)).square().sum(0)
    return torch.exp(-distance / (2 * 2.5**2))


@pytest.mark.parametrize("factor", FACTORS)
def test_truth_and_signal_are_registered(factor):
    grid = Grid((32, 30, 28), (1.0, 1.1, 1.3))
    middle = (0.37, -0.81, 0.55)
    fine = blob(fine_grid(grid, factor), middle)
    points = grid.points()
    centres = [
        (points * volume).sum((1, 2, 3)) / volume.sum()
        for volume in (box_average(fine, factor), cropped(fine, factor).real)
    ]
    for centre in centres:
        shift = (centre - torch.tensor(middle)) / torch.tensor(grid.voxel_size)
        assert float(shift.abs().max()) < 0.01


@pytest.mark.parametrize("factor", FACTORS)
def test_box_keeps_the_mean_and_ramps(factor):
    fine = fine_grid(GRID, factor)
    assert float(box_average(torch.ones(fine.shape), factor).std()) < 1e-6
    found = box_average(fine.points()[1], factor)[:, 1:-1]
    assert found == pytest.approx(GRID.points()[1][:, 1:-1], abs=1e-4)


@pytest.mark.parametrize("factor", FACTORS)
def test_interpolation_passes_through_the_samples(factor):
    volume = torch.rand(GRID.shape)
    fine = interpolate(volume, factor)
    assert torch.equal(fine[::factor, ::factor, ::factor], volume)
    assert float(fine.max()) <= float(volume.max())


def test_slabs_are_the_grid():
    pieces = slabs(GRID, voxels=700)
    assert len(pieces) > 2
    rows = torch.cat([torch.arange(12)[rows] for rows, _ in pieces])
    assert torch.equal(rows, torch.arange(12))
    joined = torch.cat([piece.points() for _, piece in pieces], dim=1)
    assert joined == pytest.approx(GRID.points(), abs=1e-5)
