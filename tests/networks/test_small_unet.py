"""The correcting U-Net: zero at the start, any grid, sound gradients in half precision."""

import pytest
import torch

from qsmnet.networks.small_unet import SmallUNet


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("fold", [1, 2])
def test_correction_starts_at_zero_and_moves(levels, fold):
    network = SmallUNet(3, 4, levels, 2, fold=fold)
    channels = torch.randn(2, 3, 9, 7, 6)
    assert not network(channels).any()
    network(channels).sum().backward()
    with torch.no_grad():
        network.head.bias -= 0.1 * network.head.bias.grad
    assert network(channels).shape == (2, 1, 9, 7, 6)
    assert network(channels).any()


@pytest.mark.parametrize("shape", [(8, 16, 8), (5, 2, 3), (12, 9, 17)])
def test_gradients_in_half_precision_are_those_of_single(shape):
    """At two voxels along the coarsest grid's first axis they would be of unwritten memory."""
    torch.manual_seed(0)
    network = SmallUNet(3, 8, 3, 2).to(memory_format=torch.channels_last_3d)
    torch.nn.init.normal_(network.head.weight)
    channels, found = torch.randn(1, 3, *shape), []
    for half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            result = network(channels)
        result.square().mean().backward()
        found.append([p.grad.clone() for p in network.parameters()])
    for single, other in zip(*found, strict=True):
        assert float((other - single).norm()) < 0.1 * float(single.norm())


def test_no_level_is_wider_than_the_widest():
    network = SmallUNet(3, 4, 4, 1, widest=9)
    assert [level.convolutions[0].in_channels for level in network.encoder] == [4, 8, 9, 9]
