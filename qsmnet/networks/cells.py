"""Volumes padded to whole cells of a network that halves its grid, and cells as channels."""

from torch import Tensor
from torch.nn import functional as F

#: Voxels of the coarsest grid along the first axis: where any level has 2, oneDNN's gradient of a
#: bf16 convolution reads memory that nothing was written to (torch 2.13); 1 and 3 are right, and so
#: is any number along the other axes. A coarsest grid of 1 has one of 2 above it.
LEAST_CELLS = 3


def padded_to_cells(channels: Tensor, edge: int, least: tuple[int, int, int]) -> Tensor:
    """Zeros behind the last three axes.

    Parameters
    ----------
    channels
        ``(batch, channels, x, y, z)``.
    edge
        Voxels of a cell along each axis.
    least
        Cells along each axis, if the volume has fewer.
    """
    sizes = channels.shape[-3:]
    cells = [max(low, -(-size // edge)) for size, low in zip(sizes, least, strict=True)]
    missing = [each * edge - size for each, size in zip(cells, sizes, strict=True)]
    return F.pad(channels, [p for n in reversed(missing) for p in (0, n)])


def folded(volume: Tensor, edge: int) -> Tensor:
    """Cubes of ``edge`` voxels as channels: ``(batch, channels * edge^3, x / edge, ...)``."""
    if edge == 1:
        return volume
    batch, channels, x, y, z = volume.shape
    cubes = volume.reshape(batch, channels, x // edge, edge, y // edge, edge, z // edge, edge)
    # channels last in memory, as convolutions want them: one copy
    moved = cubes.permute(0, 2, 4, 6, 1, 3, 5, 7)
    last = moved.reshape(batch, x // edge, y // edge, z // edge, channels * edge**3)
    return last.permute(0, 4, 1, 2, 3)


def unfolded(channels: Tensor, edge: int) -> Tensor:
    """Undo `folded`."""
    if edge == 1:
        return channels
    batch, deep, x, y, z = channels.shape
    cubes = channels.reshape(batch, deep // edge**3, edge, edge, edge, x, y, z)
    moved = cubes.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return moved.reshape(batch, deep // edge**3, x * edge, y * edge, z * edge)
