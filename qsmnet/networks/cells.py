"""Volumes padded to whole cells of a network that halves its grid."""

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
