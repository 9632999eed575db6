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


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((12, 4, 3), (12, 4, 4)),
        ((9, 5, 17), (12, 8, 20)),
        # at two voxels along the first axis of any level gradients would be of unwritten memory
        ((8, 8, 8), (12, 8, 8)),
        ((3, 2, 1), (12, 4, 4)),
    ],
)
@torch.no_grad()
def test_grid_grows_where_gradients_need_it_alone(randomised, shape, grid):
    network, seen = randomised(UNet((3, 4, 3))), []
    network.stem.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[2:]))
    field = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    ones = torch.ones_like(field)
    chi = network(field, ones, 0 * ones, ones, [Geometry((1, 1, 1), (0, 0, 1))])
    assert chi.shape == field.shape
    assert seen == [grid]


@pytest.mark.parametrize("shape", [(8, 16, 8), (3, 2, 1), (12, 9, 17)])
def test_gradients_in_half_precision_are_those_of_single(shape):
    torch.manual_seed(0)
    network = UNet((16, 16, 32)).to(memory_format=torch.channels_last_3d)
    field, found = torch.randn(1, 1, *shape), []
    ones = torch.ones_like(field)
    for half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            chi = network(field, ones, 0.1 * ones, ones, [Geometry((1, 1, 1), (0, 0, 1))])
        chi.square().mean().backward()
        found.append([p.grad.clone() for p in network.parameters()])
    for single, other in zip(*found, strict=True):
        assert float((other - single).norm()) < 0.1 * float(single.norm())


def test_default_size():
    assert sum(p.numel() for p in UNet().parameters()) == 2_652_545
