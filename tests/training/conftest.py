"""Tiny training sets, and Lightning's hints kept out of what counts as a warning."""

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.primitives import Primitives
from qsmnet.simulate.simulator import Simulator
from qsmnet.training.batch import Batch
from qsmnet.training.data import simulated_pairs

SHAPE = (12, 14, 10)


@pytest.fixture
def simulator():
    acquisition = Acquisition(voxel_size=(1.0, 1.0, 1.0), unmasked=0.0)
    return Simulator({"solids": Primitives(count=(3, 8))}, acquisition=acquisition, shape=SHAPE)


@pytest.fixture
def pairs(simulator, tmp_path):
    """Factory of data modules on one bank."""

    def make(**settings):
        defaults = {"phantoms": 3, "validation_phantoms": 2, "seed": 1, "workers": 0}
        return simulated_pairs(simulator, tmp_path / "bank", **defaults | settings)

    return make


@pytest.fixture
def batch():
    """Two noisy objects of two geometries."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, *SHAPE)
    mask = (torch.rand(shape, generator=generator) < 0.7).float()
    chi = 0.1 * torch.randn(shape, generator=generator) * mask
    field = 0.02 * torch.randn(shape, generator=generator) * mask
    geometry = (Geometry((1, 1, 1), (0, 0, 1)), Geometry((1, 1.2, 2), (0.2, 0, 1)))
    return Batch(field, mask, torch.full(shape, 0.001), chi, mask, geometry, (4, 9))
