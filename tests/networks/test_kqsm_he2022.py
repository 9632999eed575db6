"""k-QSM as published: size, wiring, channels, truncation, dropout."""

import pytest
import torch
from torch.nn import functional as F

from qsmnet.dipole import sampled_kernel
from qsmnet.geometry import Geometry
from qsmnet.networks.kqsm_he2022 import KQSMHe2022

AXES = (-3, -2, -1)
GEOMETRY = Geometry((1, 1, 1), (0.1, 0.2, 0.97))


def test_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in KQSMHe2022().parameters()) == 502_594


def test_channels_are_tkd_and_d_with_the_published_truncation():
    field = torch.randn(1, 1, 10, 12, 9, generator=torch.Generator().manual_seed(0))
    real, imaginary, kernel = KQSMHe2022(width=4).inputs(field, [GEOMETRY])[0]
    d = sampled_kernel((10, 12, 9), GEOMETRY).float()
    # the authors' D(0)
    d[0, 0, 0] = 1 / 3
    d = torch.fft.fftshift(d)
    assert torch.equal(kernel, d)
    spectrum = torch.fft.fftshift(torch.fft.fftn(field[0, 0]))
    # +threshold even where D is negative: kept as published
    divisor = torch.where(d.abs() < 0.1, 0.1, d)
    assert ((d < 0) & (d > -0.1)).any()
    assert torch.allclose(torch.complex(real, imaginary), spectrum / divisor, atol=1e-4)


def published(weights, state, blocks):
    """The authors' network, from the weights and the three channels to the two of the spectrum."""

    def convolved(name, state):
        return F.conv3d(state, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def leaky(state):
        return torch.where(state < 0, 0.1 * state, state)

    state = leaky(convolved("stem", state))
    for i in range(blocks):
        hidden = leaky(convolved(f"blocks.{i}.first", state))
        state = leaky(state + convolved(f"blocks.{i}.second", hidden))
    for name in ("tail.0", "tail.2"):
        state = leaky(convolved(name, state))
    return convolved("head", state)


@torch.no_grad()
def test_wiring_is_the_published_one(case, randomised):
    network = randomised(KQSMHe2022(width=4, blocks=3))
    expected = published(network.state_dict(), network.inputs(case.field, case.geometry), 3)
    spectrum = network.spectrum(case.field, case.geometry)
    assert torch.allclose(torch.view_as_real(spectrum).movedim(-1, 1), expected, rtol=1e-4)


def test_dropout_comes_between_activation_and_second_convolution():
    (block,) = KQSMHe2022(width=4, blocks=1, dropout=0.2).blocks
    assert isinstance(block.dropout, torch.nn.Dropout3d)
    block.train()
    block.dropout.p = 1.0
    state = torch.randn(1, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    # of nothing, the second convolution makes its bias
    alone = F.leaky_relu(state + block.second.bias.reshape(1, 4, 1, 1, 1), 0.1)
    assert torch.allclose(block(state), alone)


@torch.no_grad()
def test_image_is_the_signed_magnitude_of_the_spectrum(case, randomised):
    network = randomised(KQSMHe2022(width=4, blocks=1))
    chi = network(*case.inputs)
    spectrum = network.spectrum(case.field * case.support, case.geometry)
    image = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=AXES), dim=AXES)
    assert chi.shape == case.field.shape
    assert torch.allclose(chi[:, 0].abs(), image.abs(), atol=1e-6)
    assert torch.equal(chi[:, 0] > 0, image.real > 0)


@torch.no_grad()
def test_dropout_while_training_only(case, randomised):
    network = randomised(KQSMHe2022(width=4, blocks=2, dropout=0.5))
    assert torch.equal(network(*case.inputs), network(*case.inputs))
    network.train()
    assert not torch.equal(network(*case.inputs), network(*case.inputs))


@torch.no_grad()
def test_batch_equals_its_items(case, randomised):
    network = randomised(KQSMHe2022(width=4, blocks=1))
    together = network(*case.inputs)
    for i in range(2):
        assert network(*case.item(i))[0] == pytest.approx(together[i], rel=1e-3, abs=1e-5)
