"""An unrolled network that is not told the noise."""

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.networks.unrolled import Unrolled

GEOMETRY = [Geometry((1.0, 1.0, 1.5), (0.0, 0.6, 0.8))]


def problem():
    generator = torch.Generator().manual_seed(3)
    field = 0.01 * torch.randn(1, 1, 12, 14, 10, generator=generator)
    mask = torch.zeros_like(field)
    mask[..., 2:-2, 2:-2, 2:-2] = 1
    noise = 0.003 * torch.rand(field.shape, generator=generator) * mask
    return field * mask, mask, noise, mask


@pytest.mark.parametrize("told", [True, False])
def test_noise_counts_only_where_it_is_an_input(told):
    network = Unrolled(1, base=2, levels=1, convolutions=1, start="tkd", noise_input=told)
    field, support, noise, mask = problem()
    with torch.no_grad():
        maps = [network(field, support, sd, mask, GEOMETRY) for sd in (noise, 0.1 * noise)]
    assert torch.equal(*maps) is not told
    assert network.takes_noise is told
