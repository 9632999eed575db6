"""A small head-like phantom with its field, for every method alike."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry, Triple
from qsmnet.volumes import LocalField

OBLIQUE = (0.15, -0.2, 0.95)


@dataclass(frozen=True)
class Phantom:
    """Truth, and what an inverter is given of it."""

    chi: Tensor
    local: LocalField

    def error(self, chi: Tensor) -> float:
        """Norm of the error over that of the truth, both about their means in the mask."""
        mask = self.local.mask
        found, truth = (each[mask] - each[mask].mean() for each in (chi, self.chi))
        return float((found - truth).norm() / truth.norm())


@pytest.fixture(scope="session")
def phantom() -> Callable[..., Phantom]:
    """Factory: an ellipsoid with spheres of -0.1 to 0.2 ppm in it, field by linear convolution."""

    def make(
        shape: tuple[int, int, int] = (30, 33, 28),
        voxel_size: Triple = (1.0, 1.0, 1.0),
        b0_dir: Triple = OBLIQUE,
        noise: float = 0.0,
        seed: int = 0,
        bleed: float = 0.0,
    ) -> Phantom:
        generator = torch.Generator().manual_seed(seed)
        geometry = Geometry(voxel_size, b0_dir)
        unit = [torch.linspace(-1, 1, n) for n in shape]
        x, y, z = torch.meshgrid(*unit, indexing="ij")
        mask = (x**2 + y**2 + z**2) < 0.8**2
        chi = torch.where(x + 0.5 * y > 0.1, 0.02, -0.03)
        for value in (0.2, -0.1, 0.1, 0.15, 0.05):
            centre = (torch.rand(3, generator=generator) - 0.5) * 0.9
            at = zip((x, y, z), centre.tolist(), strict=True)
            inside = sum((axis - c) ** 2 for axis, c in at) < 0.2**2
            chi = torch.where(inside, torch.tensor(value), chi)
        chi = chi * mask
        chi = torch.where(x**2 + y**2 + z**2 < 0.15**2, chi + bleed, chi)
        field = Dipole(shape, geometry, padding=2.0).forward(chi)
        field += noise * torch.randn(shape, generator=generator)
        return Phantom(chi, LocalField(field * mask, mask, geometry, noise=noise or None))

    return make
