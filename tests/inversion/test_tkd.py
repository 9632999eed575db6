"""Truncated k-space division against its definition."""

from collections.abc import Callable

import pytest
import torch

from qsmnet.dipole import Dipole, dipole_spectrum, sampled_kernel
from qsmnet.geometry import Geometry
from qsmnet.inversion.tkd import TKD, truncated_inverse
from qsmnet.volumes import LocalField

GEOMETRY = Geometry((1.0, 1.1, 1.3), (0.15, -0.2, 0.95))


def everywhere(field: torch.Tensor) -> LocalField:
    return LocalField(field, torch.ones(field.shape, dtype=torch.bool), GEOMETRY)


@pytest.mark.parametrize("threshold", [0.05, 0.15, 0.3])
def test_inverse_is_sign_safe(threshold: float) -> None:
    spectrum = dipole_spectrum((12, 11, 10), GEOMETRY, dtype=torch.float64)
    inverse = truncated_inverse(spectrum, threshold)
    assert inverse[0, 0, 0] == 0
    away = spectrum.abs() > threshold
    torch.testing.assert_close(inverse[away], 1 / spectrum[away])
    near = ~away & (spectrum != 0)
    assert torch.equal(inverse[near].sign(), spectrum[near].sign())
    torch.testing.assert_close(inverse[near].abs(), torch.full_like(inverse[near], 1 / threshold))


def test_exact_where_the_kernel_is_large() -> None:
    """On the whole grid, periodic and without noise, only |D| <= t is changed."""
    chi = torch.randn(12, 15, 10, generator=torch.Generator().manual_seed(0))
    spectrum = dipole_spectrum((12, 15, 10), GEOMETRY)
    found = TKD(0.2)(everywhere(Dipole(chi.shape, GEOMETRY).forward(chi))).chi
    kept = spectrum.abs() > 0.2
    before, after = (torch.fft.rfftn(v)[kept] for v in (chi, found))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.1, 0.15, 0.2])
def test_underestimation_and_its_correction(threshold: float) -> None:
    """Slope of the map on the truth: the height of the point spread function, 1 if corrected."""
    chi = torch.randn(32, 30, 27, generator=torch.Generator().manual_seed(1))
    field = Dipole(chi.shape, GEOMETRY).forward(chi)
    kernel = sampled_kernel((32, 30, 27), GEOMETRY).abs()
    height = float(torch.where(kernel > threshold, 1.0, kernel / threshold).mean())
    slopes = [
        float((TKD(threshold, corrected)(everywhere(field)).chi * chi).sum() / chi.square().sum())
        for corrected in (False, True)
    ]
    assert height < 0.9
    assert slopes == pytest.approx([height, 1.0], abs=0.02)


def test_matching_kernel_is_better(phantom: Callable) -> None:
    """Data of partial-volume cuboids are better divided by their own kernel."""
    case = phantom((30, 31, 32), (0.8, 0.8, 1.6))
    dipole = Dipole(case.chi.shape, case.local.geometry, "prism", padding=2.0)
    local = LocalField(
        dipole.forward(case.chi),
        case.local.mask,
        case.local.geometry,
        field_support=torch.ones_like(case.local.mask),
    )
    errors = [case.error(TKD(0.15, kernel=kernel)(local).chi) for kernel in ("prism", "sampled")]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("threshold", [0.0, -0.1, 0.7])
def test_refuses_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        TKD(threshold)


@pytest.mark.parametrize("padding", [0.0, 9.0, float("nan"), float("inf")])
def test_refuses_a_padding_out_of_range(padding: float) -> None:
    with pytest.raises(ValueError, match="padding"):
        TKD(padding=padding)
