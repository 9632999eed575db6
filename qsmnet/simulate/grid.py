"""The grid that a scene is drawn on, and painting on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Triple

Window = tuple[slice, slice, slice]
WHOLE: Window = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm, the middle of the grid at the origin.

    Parameters
    ----------
    shape
        Voxels along x, y, z.
    voxel_size
        In mm.
    device
        Where tensors are made.
    """

    shape: tuple[int, int, int]
    voxel_size: Triple
    device: torch.device | str = "cpu"

    @property
    def extent(self) -> Triple:
        """Field of view in mm."""
        x, y, z = (n * d for n, d in zip(self.shape, self.voxel_size, strict=True))
        return x, y, z

    @property
    def edge(self) -> float:
        """Mean voxel edge in mm: the width of a partial-volume ramp."""
        return sum(self.voxel_size) / 3

    def axis(self, dimension: int, window: slice = slice(None)) -> Float[Tensor, " n"]:
        """Coordinates in mm of the voxel centres along one axis."""
        n, d = self.shape[dimension], self.voxel_size[dimension]
        return ((torch.arange(n, device=self.device) - (n - 1) / 2) * d)[window]

    def points(self, window: Window = WHOLE) -> Float[Tensor, "3 x y z"]:
        """Coordinates in mm of the voxels in ``window``."""
        axes = [self.axis(i, w) for i, w in enumerate(window)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def window(self, centre: Sequence[float], reach: float) -> Window:
        """Smallest block of voxels that holds a ball of radius ``reach`` mm about ``centre`` mm."""
        slices = []
        for n, d, c in zip(self.shape, self.voxel_size, centre, strict=True):
            middle = (n - 1) / 2
            low = min(n, int(max(0, (c - reach) / d + middle)))
            high = int(min(n, max(0, (c + reach) / d + middle + 2)))
            slices.append(slice(low, max(low, high)))
        return slices[0], slices[1], slices[2]

    def coverage(self, distance: Tensor, softness: float = 1.0) -> Tensor:
        """Share of a voxel inside a surface, from the signed distance (mm, negative inside)."""
        return (0.5 - distance / (self.edge * softness)).clamp(0.0, 1.0)


def paint(volume: Tensor, weight: Tensor, value: Tensor | float) -> None:
    """Blend ``value`` into ``volume`` in place; ``weight`` in [0, 1] is the share of the voxel."""
    volume.mul_(1.0 - weight).add_(weight * value)
