"""Rapid two-step: what each step does, what lambda means, what is unknown."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole, dipole_spectrum
from qsmnet.geometry import Geometry
from qsmnet.inversion.rts import RTS
from qsmnet.inversion.tkd import TKD
from qsmnet.inversion.tsvd import TSVD
from qsmnet.volumes import LocalField


def test_keeps_what_is_measured_and_fills_the_rest() -> None:
    """Periodic and known everywhere: above the threshold b / D, below it better than nothing."""
    shape = (24, 20, 18)
    chi = torch.zeros(shape)
    chi[6:12, 5:12, 4:10] = 0.1
    chi[12:18, 10:15, 8:14] = -0.05
    chi -= chi.mean()
    geometry = Geometry((1.0, 1.1, 1.3), (0.15, -0.2, 0.95))
    field = Dipole(shape, geometry).forward(chi)
    local = LocalField(field, torch.ones(shape, dtype=torch.bool), geometry)
    method = RTS(1e-4, threshold=0.2, padding=1.0, max_iterations=150, refills=2, tolerance=0.0)
    found = method(local).chi
    truth, ours = (torch.fft.rfftn(each - each.mean()) for each in (chi, found))
    above = dipole_spectrum(shape, geometry).abs() > 0.2
    assert (ours - truth)[above].norm() < 0.03 * truth[above].norm()
    assert (ours - truth)[~above].norm() < 0.3 * truth[~above].norm()


def test_better_than_division_and_than_zeros_outside(phantom: Callable) -> None:
    case = phantom(noise=0.001)
    error = case.error(RTS()(case.local).chi)
    assert error < 0.7 * min(case.error(each(case.local).chi) for each in (TKD(), TSVD()))
    zeros = replace(case.local, field_support=torch.ones_like(case.local.mask))
    assert error < 0.8 * case.error(RTS()(zeros).chi)


def test_second_step_and_refills_help(phantom: Callable) -> None:
    case = phantom(noise=0.001)
    errors = [
        case.error(method(case.local).chi)
        for method in (RTS(max_iterations=1), RTS(refills=0), RTS())
    ]
    assert errors[2] < errors[1] < errors[0]


def test_recovers_a_piecewise_constant_phantom(phantom: Callable) -> None:
    case = phantom((40, 42, 38))
    method = RTS(3e-4, max_iterations=60, refills=29, tolerance=0.0)
    assert case.error(method(case.local).chi) < 0.2


def test_lambda_does_not_hang_on_the_grid(phantom: Callable) -> None:
    """One object on voxels of 1 and 0.5 mm: the same lambda shrinks both alike."""
    coarse = phantom((20, 20, 20))
    fine = coarse.chi
    for axis in range(3):
        fine = fine.repeat_interleave(2, axis)
    mask = fine != 0
    geometry = Geometry((0.5, 0.5, 0.5), coarse.local.geometry.b0_dir)
    field = Dipole(fine.shape, geometry, padding=2.0).forward(fine) * mask
    method = RTS(regularisation=0.02)
    shrunk = [
        float((method(each).chi * truth).sum() / truth.square().sum())
        for each, truth in (
            (coarse.local, coarse.chi),
            (LocalField(field, mask, geometry), fine),
        )
    ]
    assert shrunk[0] < 0.9
    assert shrunk[1] == pytest.approx(shrunk[0], abs=0.08)


def test_stronger_is_smoother(phantom: Callable) -> None:
    local = phantom(noise=0.002).local

    def roughness(strength: float) -> float:
        chi = RTS(strength)(local).chi
        return sum(float(chi.diff(dim=axis).abs().sum()) for axis in range(3))

    assert roughness(0.02) < 0.8 * roughness(0.002)


def test_constant_offset_is_free(phantom: Callable) -> None:
    local = phantom().local
    shifted = replace(local, field=(local.field + 0.5) * local.mask)
    reference, chi = (RTS(tolerance=0.0)(each).chi for each in (local, shifted))
    assert (chi - reference).norm() < 0.1 * reference.norm()


def test_weights_help_where_the_noise_varies(phantom: Callable) -> None:
    case = phantom()
    sd = torch.full_like(case.chi, 0.001)
    sd[:, :, : case.chi.shape[2] // 2] = 0.02
    generator = torch.Generator().manual_seed(5)
    field = case.local.field + sd * torch.randn(sd.shape, generator=generator) * case.local.mask
    known = replace(case.local, field=field, noise=sd)
    errors = [case.error(RTS()(each).chi) for each in (known, replace(known, noise=None))]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"regularisation": 0.0}, "regularisation"),
        ({"regularisation": math.nan}, "regularisation"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"first_iterations": 0}, "first_iterations"),
        ({"refills": -1}, "refills"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"padding": math.nan}, "padding"),
    ],
)
def test_refuses_parameters_out_of_range(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RTS(**wrong)
