"""Balls and their magnitude, for tests of masks."""

from dataclasses import dataclass
from functools import lru_cache

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


@dataclass(frozen=True)
class Head:
    """Brain, dark skull, bright scalp and neck; quality is low in air, skull and a bleed."""

    evidence: Evidence
    brain: torch.Tensor
    core: torch.Tensor
    bleed: torch.Tensor

    def known(self, _: Evidence, /) -> torch.Tensor:
        """Take the place of a brain extraction."""
        return self.brain


@lru_cache
def head(slope: float = 0.0) -> Head:
    """Voxels of 4 x 4 x 5 mm; ``slope`` of log magnitude along x and z over the grid."""
    edges = (4.0, 4.0, 5.0)
    axes = [(torch.arange(n) - n / 2 + 0.2) * d for n, d in zip((48, 52, 40), edges, strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    radius = ((x / 62) ** 2 + (y / 76) ** 2 + ((z - 12) / 60) ** 2).sqrt()
    neck = ((x**2 + y**2).sqrt() < 50) & (z < -30) & (radius > 1.15)
    signal = 100.0 * (radius < 1) + 220.0 * ((radius > 1.15) & (radius < 1.25)) + 80.0 * neck
    bleed = ((x - 20) ** 2 + y**2 + (z - 10) ** 2).sqrt() < 9
    signal = torch.where(bleed, 20.0, signal)
    coils = torch.exp(slope * (x / x.max() - z / z.max()))
    quality = torch.where((signal > 50), 0.9, 0.1)
    magnitude = noisy(signal * coils)
    geometry = Geometry(edges, (0.0, 0.0, 1.0))
    evidence = Evidence(magnitude, geometry, first_echo=magnitude, quality=quality)
    return Head(evidence, radius < 1, radius < 0.85, bleed)
