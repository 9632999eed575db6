"""The image-space baseline."""

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.networks.unet import UNet


@torch.no_grad()
def test_knows_no_geometry(case, randomised):
    network = randomised(UNet((4, 6)))
    one, other = case.geometry
    field, support, noise, mask, _ = case.item(0)
    assert torch.equal(
        network(field, support, noise, mask, [one]),
        network(field, support, noise, mask, [other]),
    )


@pytest.mark.parametrize("levels", [1, 2, 4])
@torch.no_grad()
def test_grid_is_padded_to_whole_cells(case, randomised, levels):
    network = randomised(UNet((4,) * levels))
    assert network.multiple == 2 ** (levels - 1)
    chi = network(*case.inputs)
    assert chi.shape == case.field.shape


@torch.no_grad()
def test_translation_by_a_cell_moves_the_map(randomised):
    # away from the borders a convolution sees the same surroundings
    network = randomised(UNet((3, 4)))
    generator = torch.Generator().manual_seed(0)
    field = torch.zeros(1, 1, 72, 16, 16)
    field[..., 26:30, 6:10, 6:10] = torch.randn(4, 4, 4, generator=generator)
    ones = torch.ones_like(field)
    inputs = (ones, torch.zeros_like(field), ones, [Geometry((1, 1, 1), (0, 0, 1))])
    here, there = network(field, *inputs), network(field.roll(16, -3), *inputs)
    assert torch.allclose(here[:, :, 22:34], there[:, :, 38:50], atol=1e-5)


def test_default_size():
    assert sum(p.numel() for p in UNet().parameters()) == 2_652_545
