"""Partial-volume sources on a grid, and the frame that closed forms are written in."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from qsmnet.dipole import Shape
from qsmnet.geometry import Triple

#: Samples an axis and voxel: the tolerances hold for this partial volume.
SAMPLES = 5


def positions(shape: Shape, voxel_size: Triple, centre: Triple) -> list[Tensor]:
    """Coordinates in mm of voxel centres, about ``centre`` in mm from the grid's middle."""
    axes = [
        (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * edge - origin
        for size, edge, origin in zip(shape, voxel_size, centre, strict=True)
    ]
    return list(torch.meshgrid(*axes, indexing="ij"))


@pytest.fixture(scope="session")
def sphere() -> Callable[..., Tensor]:
    """Volume fraction of a sphere of ``radius`` mm."""

    def draw(
        shape: Shape, voxel_size: Triple, radius: float, centre: Triple = (0.0, 0.0, 0.0)
    ) -> Tensor:
        at = positions(shape, voxel_size, centre)
        offsets = (torch.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
        fraction = torch.zeros(shape, dtype=torch.float64)
        for i, j, k in product(offsets.tolist(), repeat=3):
            shift = (i * voxel_size[0], j * voxel_size[1], k * voxel_size[2])
            fraction += sum((p + s) ** 2 for p, s in zip(at, shift, strict=True)) <= radius**2
        return fraction / SAMPLES**3

    return draw


@pytest.fixture(scope="session")
def frame() -> Callable[..., tuple[Tensor, Tensor]]:
    """Distance in mm from a centre, and cosine of the angle to B0."""

    def of(
        shape: Shape, voxel_size: Triple, b0_dir: Triple, centre: Triple = (0.0, 0.0, 0.0)
    ) -> tuple[Tensor, Tensor]:
        at = positions(shape, voxel_size, centre)
        radius = sum(p**2 for p in at).sqrt().clamp_min(1e-9)
        return radius, sum(p * b for p, b in zip(at, b0_dir, strict=True)) / radius

    return of
