"""Incomplete spectra: the support fills the cone, and only as well as the field is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.inversion.incomplete_spectrum import IncompleteSpectrum
from qsmnet.inversion.tsvd import TSVD
from qsmnet.volumes import LocalField

LONG = {"max_iterations": 60, "tolerance": 0.0}


def known_everywhere(case) -> LocalField:
    """The periodic field of the phantom on the whole grid, by the solver's own kernel."""
    field = Dipole(case.chi.shape, case.local.geometry, padding=1.0).forward(case.chi)
    support = torch.ones_like(case.local.mask)
    return replace(case.local, field=field, field_support=support)


def test_support_fills_the_cone(phantom: Callable) -> None:
    """Where the whole field is known the support alone recovers what TSVD leaves at zero."""
    case = phantom((24, 25, 27))
    local = known_everywhere(case)
    method = IncompleteSpectrum(0.1, "zero", padding=1.0, **LONG)
    assert case.error(method(local).chi) < 0.3 * case.error(TSVD(0.1)(local).chi)


def test_first_order_condition(phantom: Callable) -> None:
    """M K (F chi - F f / D) vanishes for the converged map of the field as the paper takes it."""
    case = phantom((20, 24, 18))
    local = known_everywhere(case)
    noise = 0.005 * torch.randn(case.chi.shape, generator=torch.Generator().manual_seed(0))
    local = replace(local, field=local.field + noise)
    chi = IncompleteSpectrum(0.2, "zero", padding=1.0, max_iterations=400, tolerance=1e-4)(
        local
    ).chi
    dipole = Dipole(chi.shape, local.geometry, padding=1.0)
    above = dipole.spectrum.abs() > 0.2
    division = torch.where(above, 1 / dipole.spectrum, 0.0)
    gap = dipole.filter(chi, above.float()) - dipole.filter(local.field, division)
    start = dipole.filter(local.field, division) * local.mask
    assert (gap * local.mask).norm() < 2e-3 * start.norm()


def test_filling_is_better_than_zeros(phantom: Callable) -> None:
    case = phantom(noise=0.001)
    zero = min(
        case.error(IncompleteSpectrum(0.15, "zero", max_iterations=n)(case.local).chi)
        for n in (1, 2, 3, 5, 8)
    )
    assert case.error(IncompleteSpectrum()(case.local).chi) < 0.9 * zero


def test_zeros_outside_semi_converge(phantom: Callable) -> None:
    """The reason to stop early, and to fill: more iterations fit the error of the field."""
    case = phantom((36, 38, 34), noise=0.002)
    errors = [
        case.error(IncompleteSpectrum(0.1, "zero", max_iterations=n, tolerance=0.0)(case.local).chi)
        for n in (2, 40)
    ]
    assert errors[1] > 1.1 * errors[0]


def test_threshold_has_no_unit(phantom: Callable) -> None:
    """As the kernel has none: neither the field's unit nor that of length moves the map."""
    local = phantom((22, 23, 24)).local
    reference = IncompleteSpectrum()(local).chi
    geometry = replace(local.geometry, voxel_size=tuple(2 * d for d in local.geometry.voxel_size))
    chi = IncompleteSpectrum()(replace(local, field=1000 * local.field, geometry=geometry)).chi
    assert (chi / 1000 - reference).norm() < 1e-3 * reference.norm()


def test_noisy_voxels_count_less(phantom: Callable) -> None:
    case = phantom()
    sd = torch.full_like(case.chi, 0.001)
    sd[:, :, : case.chi.shape[2] // 2] = 0.03
    generator = torch.Generator().manual_seed(5)
    field = case.local.field + sd * torch.randn(sd.shape, generator=generator) * case.local.mask
    known = replace(case.local, field=field, noise=sd)
    errors = [
        case.error(IncompleteSpectrum()(each).chi) for each in (known, replace(known, noise=None))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_tolerance_stops_it(phantom: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = torch.fft.rfftn

    def counted(*args: object, **options: object) -> torch.Tensor:
        calls.append(1)
        return plain(*args, **options)

    monkeypatch.setattr(torch.fft, "rfftn", counted)
    local = phantom().local
    pairs = {}
    for tolerance in (0.0, 0.03, 0.3):
        calls.clear()
        IncompleteSpectrum(tolerance=tolerance)(local)
        pairs[tolerance] = len(calls)
    assert pairs[0.0] == 2 + 2 * 24
    assert pairs[0.3] < pairs[0.03] < pairs[0.0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"threshold": 0.7}, "threshold"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"padding": math.nan}, "padding"),
    ],
)
def test_refuses_parameters_out_of_range(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        IncompleteSpectrum(**wrong)
