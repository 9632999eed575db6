"""A small object with its field, and networks that are not at their zero start."""

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry

#: Odd, even and prime, no two alike.
SHAPE = (13, 16, 11)
GEOMETRIES = (Geometry((1, 1, 1), (0, 0, 1)), Geometry((0.9, 1.1, 1.6), (0.2, -0.3, 0.93)))


class Case:
    """Two objects in masks of two sizes, each with its own geometry, as a network takes them."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        axes = [torch.linspace(-1, 1, n) for n in SHAPE]
        radius = sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")).sqrt()
        mask = torch.stack([radius < 0.9, radius < 0.7])
        chi = 0.1 * torch.randn(2, *SHAPE, generator=generator) * mask
        noise = 0.002 * (1 + torch.rand(2, *SHAPE, generator=generator))
        field = Dipole(SHAPE, GEOMETRIES, padding=2).forward(chi)
        field += noise * torch.randn(field.shape, generator=generator)
        self.field, self.support = (field * mask)[:, None], mask[:, None].float()
        self.noise = noise[:, None]
        self.chi = chi[:, None]
        self.geometry = GEOMETRIES

    @property
    def inputs(self):
        return self.field, self.support, self.noise, self.support, self.geometry

    def item(self, i):
        return *(v[i : i + 1] for v in self.inputs[:4]), self.geometry[i : i + 1]


@pytest.fixture(scope="session")
def case():
    return Case()


@pytest.fixture(scope="session")
def randomised():
    """Give all parameters random values: heads start at zero, where every network is linear."""

    def change(network):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 25
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        return network.eval()

    return change
