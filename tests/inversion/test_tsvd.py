"""Truncated singular values against their definition."""

import pytest
import torch

from qsmnet.dipole import Dipole, dipole_spectrum, sampled_kernel
from qsmnet.geometry import Geometry
from qsmnet.inversion.tkd import TKD
from qsmnet.inversion.tsvd import TSVD, inverse_above
from qsmnet.volumes import LocalField

GEOMETRY = Geometry((1.0, 1.1, 1.3), (0.15, -0.2, 0.95))
SHAPE = (24, 27, 20)


def everywhere(field: torch.Tensor) -> LocalField:
    return LocalField(field, torch.ones(field.shape, dtype=torch.bool), GEOMETRY)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threshold", [0.05, 0.15, 0.3])
def test_inverse_is_zero_below_and_exact_above(threshold: float) -> None:
    spectrum = dipole_spectrum(SHAPE, GEOMETRY, dtype=torch.float64)
    inverse = inverse_above(spectrum, threshold)
    above = spectrum.abs() > threshold
    torch.testing.assert_close(inverse[above], 1 / spectrum[above])
    assert not inverse[~above].any()
    assert bool((~above).any())


def test_keeps_what_is_above_and_nothing_else() -> None:
    """On the whole grid, periodic and without noise, it is a projection of the truth."""
    chi, kept = noise(0), dipole_spectrum(SHAPE, GEOMETRY).abs() > 0.2
    found = TSVD(0.2)(everywhere(Dipole(SHAPE, GEOMETRY).forward(chi))).chi
    expected = Dipole(SHAPE, GEOMETRY).filter(chi, kept.float())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_differs_from_tkd_below_the_threshold_alone() -> None:
    field = noise(1)
    both = [torch.fft.rfftn(method(everywhere(field)).chi) for method in (TSVD(0.2), TKD(0.2))]
    kept = dipole_spectrum(SHAPE, GEOMETRY).abs() > 0.2
    torch.testing.assert_close(both[0][kept], both[1][kept], rtol=1e-3, atol=1e-2)
    assert (both[0] - both[1])[~kept].abs().max() > 10


@pytest.mark.parametrize("threshold", [0.1, 0.2])
def test_underestimation_and_its_correction(threshold: float) -> None:
    """Slope of the map on the truth: the share of k-space that is kept, 1 if corrected."""
    chi = noise(2)
    field = Dipole(SHAPE, GEOMETRY).forward(chi)
    share = float((sampled_kernel(SHAPE, GEOMETRY).abs() > threshold).double().mean())
    slopes = [
        float((TSVD(threshold, on)(everywhere(field)).chi * chi).sum() / chi.square().sum())
        for on in (False, True)
    ]
    assert share < 0.9
    assert slopes == pytest.approx([share, 1.0], abs=0.02)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 0.7, float("nan")])
def test_refuses_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        TSVD(threshold)


@pytest.mark.parametrize("padding", [0.0, 9.0, float("nan")])
def test_refuses_a_padding_out_of_range(padding: float) -> None:
    with pytest.raises(ValueError, match="padding"):
        TSVD(padding=padding)
