"""k-QSM as published: size, channels, truncation, dropout."""

import pytest
import torch

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
    d = torch.fft.fftshift(sampled_kernel((10, 12, 9), GEOMETRY)).float()
    assert torch.equal(kernel, d)
    spectrum = torch.fft.fftshift(torch.fft.fftn(field[0, 0]))
    # +threshold even where D is negative: kept as published
    divisor = torch.where(d.abs() < 0.1, 0.1, d)
    assert ((d < 0) & (d > -0.1)).any()
    assert torch.allclose(torch.complex(real, imaginary), spectrum / divisor, atol=1e-4)


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
