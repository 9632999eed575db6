"""The grid that a scene is drawn on, and painting on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Triple

Window = tuple[slice, slice, slice]
WHOLE: Window = (slice(None), slice(None), slice(None))
# squared slope of a distance that has no direction; that of a surface is about 1
_FLAT = 1e-6


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm, the middle of the grid at the origin or where ``centre`` says.

    Parameters
    ----------
    shape
        Voxels along x, y, z.
    voxel_size
        In mm.
    device
        Where tensors are made.
    centre
        Middle of the grid in mm: a slab of a larger grid, or a finer one whose samples lie
        elsewhere, is drawn by the same functions of space.
    """

    shape: tuple[int, int, int]
    voxel_size: Triple
    device: torch.device | str = "cpu"
    centre: Triple = (0.0, 0.0, 0.0)

    @property
    def extent(self) -> Triple:
        """Field of view in mm."""
        x, y, z = (n * d for n, d in zip(self.shape, self.voxel_size, strict=True))
        return x, y, z

    @property
    def edge(self) -> float:
        """Mean voxel edge in mm."""
        return sum(self.voxel_size) / 3

    @property
    def margin(self) -> float:
        """Distance in mm from a surface beyond which no ramp of a softness up to 4 reaches."""
        return 2 * max(self.voxel_size)

    def axis(self, dimension: int, window: slice = slice(None)) -> Float[Tensor, " n"]:
        """Coordinates in mm of the voxel centres along one axis."""
        n, d = self.shape[dimension], self.voxel_size[dimension]
        along = (torch.arange(n, device=self.device) - (n - 1) / 2) * d + self.centre[dimension]
        return along[window]

    def points(self, window: Window = WHOLE) -> Float[Tensor, "3 x y z"]:
        """Coordinates in mm of the voxels in ``window``."""
        axes = [self.axis(i, w) for i, w in enumerate(window)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def window(self, centre: Sequence[float], reach: float) -> Window:
        """Smallest block of voxels that holds a ball of radius ``reach`` mm about ``centre`` mm."""
        slices = []
        sizes = zip(self.shape, self.voxel_size, centre, self.centre, strict=True)
        for n, d, wanted, own in sizes:
            middle, c = (n - 1) / 2, wanted - own
            low = min(n, int(max(0, (c - reach) / d + middle)))
            high = int(min(n, max(0, (c + reach) / d + middle + 2)))
            slices.append(slice(low, max(low, high)))
        return slices[0], slices[1], slices[2]

    def coverage(
        self, distance: Float[Tensor, "x y z"], softness: float = 1.0
    ) -> Float[Tensor, "x y z"]:
        """Share of a voxel inside a surface, from the signed distance (mm, negative inside)."""
        return (0.5 - distance / (self.ramp(distance) * softness)).clamp(0.0, 1.0)

    def ramp(self, distance: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"] | float:
        r"""Width in mm over which a surface of normal n cuts a voxel of edges d.

        :math:`\sqrt{\sum (n_i d_i)^2}`, so that the ramp has the variance of the voxel projected on
        n: the edge itself where all are equal. n is the direction in which ``distance`` grows, by
        differences along the axes; its unit does not matter.
        """
        if len(set(self.voxel_size)) == 1:
            return self.edge
        # where the distance is flat, as in the middle of a solid, the mean edge
        across = torch.full_like(distance, _FLAT * self.edge**2)
        length = torch.full_like(distance, _FLAT)
        for axis, d in enumerate(self.voxel_size):
            if distance.shape[axis] > 1:
                step = torch.gradient(distance, dim=axis)[0].square_()
                across += step
                length.add_(step, alpha=1 / d**2)
        return across.div_(length).sqrt_()


def paint(volume: Tensor, weight: Tensor, value: Tensor | float) -> None:
    """Blend ``value`` into ``volume`` in place; ``weight`` in [0, 1] is the share of the voxel."""
    volume.mul_(1.0 - weight).add_(weight * value)
