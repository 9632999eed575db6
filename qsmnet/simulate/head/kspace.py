r"""From a fine grid to the scan's, in the two ways that a scan and its truth need.

A scan samples the spectrum of the object: the signal is cut in k-space. Sample n of the result lies
exactly on fine sample ``factor * n``, so that the fine grid is placed (`fine_grid`) where these are
the centres of the scan's voxels. Block means would lie a quarter of a voxel beside (factor 2).
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from qsmnet.geometry import Triple
from qsmnet.simulate.grid import Grid


def fine_grid(grid: Grid, factor: int, below: int = 0) -> Grid:
    """Grid of ``factor`` times smaller voxels whose samples ``factor * n`` are those of ``grid``.

    Parameters
    ----------
    factor
        Per axis.
    below
        Voxels of ``grid`` that are added at the low end of the third axis.
    """
    x, y, z = grid.shape
    shape = (x * factor, y * factor, (z + below) * factor)
    dx, dy, dz = grid.voxel_size
    fine = (dx / factor, dy / factor, dz / factor)
    shift = [(factor - 1) / 2 * d for d in fine]
    cx, cy, cz = (c + s for c, s in zip(grid.centre, shift, strict=True))
    return Grid(shape, fine, grid.device, (cx, cy, cz - below * dz / 2))


def crop_spectrum(
    volume: Complex[Tensor, "*batch fine"], factor: int
) -> Complex[Tensor, "*batch coarse"]:
    """Keep the lowest frequencies along the last axis; the mean stays what it was."""
    if factor == 1:
        return volume
    size = volume.shape[-1] // factor
    spectrum = torch.fft.fft(volume, dim=-1)
    low, high = (size + 1) // 2, size // 2
    kept = torch.cat([spectrum[..., :low], spectrum[..., spectrum.shape[-1] - high :]], dim=-1)
    cropped: Tensor = torch.fft.ifft(kept, dim=-1) / factor
    return cropped


def crop_spectrum_along(
    volume: Complex[Tensor, "*batch x y z"], axis: int, factor: int
) -> Complex[Tensor, "*batch cx cy cz"]:
    """`crop_spectrum` along one axis, counted from the end."""
    return crop_spectrum(volume.movedim(axis, -1), factor).movedim(-1, axis)


def box_average(volume: Float[Tensor, "x y z"], factor: int) -> Float[Tensor, "cx cy cz"]:
    """Mean over the scan's voxel, centred on its sample.

    Weights 1/4, 1/2, 1/4 for factor 2, 1/3 each for 3: the voxel's edges cut fine voxels in half
    where the factor is even. The grid goes on periodically, as for the discrete spectrum.
    """
    for axis in range(3):
        volume = _average_along(volume, axis, factor)
    return volume


def _average_along(volume: Tensor, axis: int, factor: int) -> Tensor:
    half = factor // 2
    total: Tensor | float = 0.0
    for offset in range(-half, half + 1):
        edge = factor % 2 == 0 and abs(offset) == half
        index = torch.arange(0, volume.shape[axis], factor, device=volume.device) + offset
        sample = volume.index_select(axis, index % volume.shape[axis])
        total = total + sample * ((0.5 if edge else 1.0) / factor)
    return torch.as_tensor(total)


def interpolate(volume: Float[Tensor, "x y z"], factor: int) -> Float[Tensor, "fx fy fz"]:
    """Linear interpolation from the scan's samples to the fine grid; the ends repeat."""
    for axis in range(3):
        n = volume.shape[axis]
        position = torch.arange(n * factor, device=volume.device) / factor
        low = position.floor().long()
        weight = (position - low).reshape([-1 if other == axis else 1 for other in range(3)])
        first = volume.index_select(axis, low)
        second = volume.index_select(axis, (low + 1).clamp_max(n - 1))
        volume = first + weight.to(volume.dtype) * (second - first)
    return volume


def slabs(grid: Grid, voxels: int = 4_000_000) -> list[tuple[slice, Grid]]:
    """Cut a grid along its first axis into pieces of about ``voxels``, to draw piece by piece."""
    x, y, z = grid.shape
    thickness = max(2, voxels // (y * z))
    pieces = []
    for start in range(0, x, thickness):
        stop = min(x, start + thickness)
        middle = (start + stop - x) / 2 * grid.voxel_size[0]
        centre: Triple = (grid.centre[0] + middle, grid.centre[1], grid.centre[2])
        piece = Grid((stop - start, y, z), grid.voxel_size, grid.device, centre)
        pieces.append((slice(start, stop), piece))
    return pieces
