"""k-QSM, corrected: what it is before any training, its envelope, its symmetries."""

import pytest
import torch

from qsmnet.dipole import dipole_spectrum, sampled_kernel
from qsmnet.geometry import Geometry
from qsmnet.networks.kqsm import KQSM, radial_envelope

SHAPE = (14, 15, 12)
OBLIQUE = Geometry((0.9, 1.1, 1.6), (0.2, -0.3, 0.93))
AXES = (-3, -2, -1)


@pytest.fixture
def field():
    volume = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    return volume - volume.mean()


def untrained(**settings):
    return KQSM(**{"stages": 1, "width": 4, "kernel": "sampled"} | settings).eval()


@pytest.mark.parametrize("stages", [1, 2, 5])
@torch.no_grad()
def test_untrained_it_is_iterated_division(field, stages):
    """Noise-free and known everywhere: x = b / D (1 - (t^2 / (D^2 + t^2))^n)."""
    everywhere = torch.ones_like(field)
    chi = untrained(stages=stages)(field, everywhere, 0 * field, everywhere, [OBLIQUE])
    d = dipole_spectrum(SHAPE, OBLIQUE, dtype=torch.float64)
    d[0, 0, 0] = 1.0
    gain = (1 - (0.01 / (d**2 + 0.01)) ** stages) / d
    gain[0, 0, 0] = 0.0
    expected = torch.fft.irfftn(torch.fft.rfftn(field.double(), dim=AXES) * gain, SHAPE, AXES)
    assert torch.allclose(chi.double(), expected, atol=1e-4 * float(expected.std()))


@torch.no_grad()
def test_division_keeps_the_sign_of_d(field):
    chi = untrained()(field, torch.ones_like(field), 0 * field, torch.ones_like(field), [OBLIQUE])
    ratio = (torch.fft.rfftn(chi, dim=AXES) / torch.fft.rfftn(field, dim=AXES))[0, 0].real
    d = dipole_spectrum(SHAPE, OBLIQUE)
    clear = d.abs() > 0.01
    assert torch.equal(ratio[clear].sign(), d[clear].sign())


@torch.no_grad()
def test_noise_damps_where_it_exceeds_the_signal(field):
    everywhere, network = torch.ones_like(field), untrained()
    quiet = network(field, everywhere, 0 * field, everywhere, [OBLIQUE])
    noisy = network(field, everywhere, torch.full_like(field, 0.9), everywhere, [OBLIQUE])
    spectra = [torch.fft.rfftn(v, dim=AXES).abs()[0, 0] for v in (quiet, noisy)]
    ratio = spectra[1] / spectra[0].clamp_min(1e-6)
    d = dipole_spectrum(SHAPE, OBLIQUE).abs()
    assert ratio.max() <= 1 + 1e-4
    assert ratio[(d < 0.1) & (d > 0.01)].mean() < 0.7 * ratio[d > 0.5].mean()


@torch.no_grad()
def test_k_zero_stays_empty(field, randomised):
    chi = untrained()(
        field + 3.0, torch.ones_like(field), 0 * field, torch.ones_like(field), [OBLIQUE]
    )
    assert float(chi.mean()) == pytest.approx(0, abs=1e-5)


@torch.no_grad()
def test_stages_fill_the_unknown_field(case):
    field, support, noise, mask, geometry = case.item(0)
    errors = []
    for stages in (1, 6):
        chi = untrained(stages=stages)(field, support, 0 * noise, mask, geometry) * support
        errors.append(float((chi - case.chi[:1]).norm() / case.chi[:1].norm()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@torch.no_grad()
def test_untrained_it_commutes_with_mirrors(case, axis):
    # of the object and of B0; a trained network has learnt no such symmetry
    field, support, noise, mask, _ = case.item(1)
    mirrored = list(OBLIQUE.b0_dir)
    mirrored[axis] *= -1
    geometry = Geometry(OBLIQUE.voxel_size, tuple(mirrored))
    network = untrained(stages=3)
    chi = network(field, support, noise, mask, [OBLIQUE])
    flipped = (v.flip(axis - 3) for v in (field, support, noise, mask))
    assert torch.allclose(network(*flipped, [geometry]), chi.flip(axis - 3), atol=1e-5)


@torch.no_grad()
def test_geometry_matters(case, randomised):
    network = randomised(untrained())
    field, support, noise, mask, _ = case.item(0)
    maps = [network(field, support, noise, mask, [geometry]) for geometry in case.geometry]
    assert not torch.allclose(*maps, rtol=0.1)


def centred(volume):
    return torch.fft.fftshift(volume, dim=AXES)


def envelope_of(chi, geometry, variance=0.0, noise=None):
    shape = tuple(chi.shape)
    kernel = centred(sampled_kernel(shape, geometry).float())
    spectrum = centred(torch.fft.fftn(chi, norm="ortho")) * kernel
    if noise is not None:
        spectrum = spectrum + centred(torch.fft.fftn(noise, norm="ortho"))
    return radial_envelope(spectrum, kernel, torch.full((1, 1, 1), variance), geometry)


def test_envelope_of_white_susceptibility_is_flat():
    chi = torch.randn(32, 36, 30, generator=torch.Generator().manual_seed(0))
    envelope = envelope_of(chi, OBLIQUE)
    middle = envelope.flatten().quantile(torch.tensor([0.02, 0.5, 0.98]))
    assert middle.tolist() == pytest.approx([1, 1, 1], abs=0.15)


def test_envelope_ignores_white_noise_of_known_variance():
    generator = torch.Generator().manual_seed(0)
    chi = torch.randn(32, 36, 30, generator=generator)
    noise = 0.3 * torch.randn(chi.shape, generator=generator)
    envelope = envelope_of(chi, OBLIQUE, 0.09, noise)
    assert float(envelope.median()) == pytest.approx(1, abs=0.15)
    assert float(envelope_of(chi, OBLIQUE, 0.0, noise).median()) > 1.1


def test_envelope_follows_a_power_law():
    shape, geometry = (40, 40, 40), Geometry((1, 1, 1), (0.3, 0.1, 0.9))
    axes = [torch.fft.fftfreq(n) for n in shape]
    radius = sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")).sqrt()
    radius[0, 0, 0] = 1.0
    white = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    chi = torch.fft.ifftn(torch.fft.fftn(white) * radius**-1.5).real
    envelope = envelope_of(chi, geometry)
    inside = (centred(radius) > 0.08) & (centred(radius) < 0.6)
    ratio = envelope[inside] * centred(radius)[inside] ** 1.5
    assert ratio.quantile(torch.tensor([0.02, 0.98])).tolist() == pytest.approx([1, 1], abs=0.25)


def test_envelope_of_noise_alone_is_finite_and_positive():
    noise = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))
    for variance in (1.0, 4.0):
        envelope = envelope_of(0 * noise, OBLIQUE, variance, noise)
        assert envelope.isfinite().all()
        assert (envelope > 0).all()
