"""Balls and their magnitude, for tests of masks."""

import torch

from qsmnet.geometry import Geometry
from qsmnet.mask.mask import Evidence

GEOMETRY = Geometry((1.0, 1.0, 2.0), (0.0, 0.0, 1.0))


def distance(x: float = 0, size: int = 40) -> torch.Tensor:
    """Distance in mm from (x, 0, 0) on a grid with voxels of 1 x 1 x 2 mm."""
    axes = (
        torch.arange(size) - size / 2,
        torch.arange(size) - size / 2,
        2.0 * torch.arange(size // 2) - size / 2,
    )
    grid = torch.meshgrid(*axes, indexing="ij")
    return ((grid[0] - x) ** 2 + grid[1] ** 2 + grid[2] ** 2).sqrt()


def ball(radius: float, x: float = 0, size: int = 40) -> torch.Tensor:
    return distance(x, size) < radius


def noisy(signal: torch.Tensor, noise: float = 2.0) -> torch.Tensor:
    """Rician magnitude."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, *signal.shape, generator=generator) * noise
    return ((signal + parts[0]) ** 2 + parts[1] ** 2).sqrt()


def evidence(magnitude: torch.Tensor, quality: torch.Tensor | None = None) -> Evidence:
    return Evidence(magnitude, GEOMETRY, quality=quality)


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
