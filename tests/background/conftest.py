"""A ball of brain with sources inside and outside, whose fields are known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from qsmnet.background.depth import depth_in_mask
from qsmnet.geometry import Geometry, Triple
from qsmnet.volumes import TotalField

OBLIQUE = (0.15, -0.2, 0.95)


@dataclass(frozen=True)
class Scene:
    """Fields in ppm, float64: ``local`` of sources in the mask, ``background`` of those outside."""

    mask: Tensor
    geometry: Geometry
    local: Tensor
    background: Tensor

    def total(self, field: Tensor | None = None, **others: object) -> TotalField:
        """What a method is given: the sum of both fields, or another one."""
        both = self.local + self.background if field is None else field
        return TotalField(both.float(), self.mask, self.geometry, **others)

    def depth(self) -> Tensor:
        return depth_in_mask(self.mask, self.geometry)


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    """Factory, with an even, an odd and another even axis."""

    def make(
        voxel_size: Triple = (1.0, 1.0, 1.0), b0_dir: Triple = OBLIQUE, radius: float = 16.0
    ) -> Scene:
        geometry = Geometry(voxel_size, b0_dir)
        grid = _grid(voxel_size)
        local = _ball_field(grid, (3.0, 0.0, -2.0), 4.0, 0.3, geometry)
        local += _ball_field(grid, (-5.0, 2.0, 3.0), 3.0, -0.3, geometry)
        background = _ball_field(grid, (4.0, 6.0, 27.0), 8.0, 9.0, geometry)
        background += _ball_field(grid, (25.0, 2.0, -3.0), 5.0, -9.0, geometry)
        background += 0.4 + 0.01 * grid[0] + 3e-4 * grid[0] * grid[1]
        mask = sum(axis**2 for axis in grid) < radius**2
        return Scene(mask, geometry, local, background)

    return make


def _grid(voxel_size: Triple) -> tuple[Tensor, ...]:
    shape = [2 * int(20 / edge) + extra for edge, extra in zip(voxel_size, (0, 1, 2), strict=True)]
    axes = [(torch.arange(n).double() - n // 2) * d for n, d in zip(shape, voxel_size, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


def _ball_field(
    grid: tuple[Tensor, ...], at: Triple, radius: float, chi: float, geometry: Geometry
) -> Tensor:
    """Field of a ball of susceptibility ``chi``, zero inside."""
    offset = [axis - centre for axis, centre in zip(grid, at, strict=True)]
    square = sum(axis**2 for axis in offset).clamp_min(1e-6)
    along = sum(axis * b for axis, b in zip(offset, geometry.b0_dir, strict=True))
    outside = chi / 3 * radius**3 * (3 * along**2 - square) / square**2.5
    return torch.where(square > radius**2, outside, 0.0)
