"""Nonlinear dipole inversion: turns are no error, the noise stops it, and few FFTs are enough."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.inversion.ndi import NDI
from qsmnet.volumes import LocalField

RADIANS = 60.0  # that 1 ppm makes


def objective(local: LocalField, chi: torch.Tensor, strength: float) -> float:
    """The stated one, on the caller's grid; chi about its mean, the constant the best of many."""
    weight = local.data_weight().double()
    weight = weight / weight[weight > 0].mean()
    dipole = Dipole(chi.shape, local.geometry, padding=2.0, dtype=torch.float64)
    phase = RADIANS * (dipole.forward(chi.double()) - local.field.double())
    cosine, sine = (weight * phase.cos()).sum(), (weight * phase.sin()).sum()
    data = float(weight.sum() - torch.hypot(cosine, sine)) / RADIANS**2
    inside = chi[local.mask].double()
    return data + 0.5 * strength * float((inside - inside.mean()).square().sum())


def test_is_a_minimum(phantom: Callable) -> None:
    case = phantom((20, 21, 22), (0.9, 1.0, 1.4), noise=0.002)
    local = replace(case.local, radians_per_ppm=RADIANS)
    chi = NDI(0.02, residual=0.0, max_iterations=200, padding=2.0)(local).chi
    reached = objective(local, chi, 0.02)
    noise = 0.05 * torch.randn(chi.shape, generator=torch.Generator().manual_seed(0)) * local.mask
    for direction in (case.chi - chi, -chi, noise, -noise):
        for step in (0.3, 0.1, 0.03):
            assert objective(local, chi + step * direction, 0.02) > reached * (1 - 1e-4)


def test_turns_are_no_error(phantom: Callable) -> None:
    """One voxel in 500 a turn off: nothing to the phase, much to a linear misfit."""
    case = phantom(noise=0.001)
    off = torch.rand(case.chi.shape, generator=torch.Generator().manual_seed(1)) < 0.002
    field = case.local.field + off * case.local.mask * 2 * math.pi / RADIANS
    wrong = replace(case.local, field=field)
    errors = [
        case.error(NDI(max_iterations=40)(replace(wrong, radians_per_ppm=turn)).chi)
        for turn in (RADIANS, None)
    ]
    assert errors[0] < 1.1 * case.error(NDI()(case.local).chi)
    assert errors[0] < 0.5 * errors[1]


def test_small_phases_are_linear(phantom: Callable) -> None:
    local = phantom(noise=0.002).local
    linear, small = (NDI()(replace(local, radians_per_ppm=turn)).chi for turn in (None, 0.1))
    assert (small - linear).norm() < 1e-3 * linear.norm()


def test_a_field_of_several_turns_is_not_caught(phantom: Callable) -> None:
    """The phase of the strongest source is beyond pi, as that of a bleed is."""
    case = phantom(noise=0.001)
    turn = 12.0 / float(case.local.field.abs().max())
    linear, nonlinear = (
        case.error(NDI()(replace(case.local, radians_per_ppm=each)).chi) for each in (None, turn)
    )
    assert nonlinear < linear + 0.03


def test_the_noise_stops_it(phantom: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = torch.fft.rfftn

    def counted(*args: object, **options: object) -> torch.Tensor:
        calls.append(1)
        return plain(*args, **options)

    monkeypatch.setattr(torch.fft, "rfftn", counted)
    pairs = []
    for noise in (0.02, 0.005, 0.001):
        calls.clear()
        NDI(max_iterations=60)(phantom(noise=noise).local)
        pairs.append(len(calls))
    assert pairs[0] < pairs[1] < pairs[2] < 60
    calls.clear()
    NDI(max_iterations=60)(replace(phantom(noise=0.02).local, noise=None))
    assert len(calls) < 80


def test_stopping_is_near_the_best(phantom: Callable) -> None:
    for noise in (0.002, 0.01):
        case = phantom((36, 38, 34), noise=noise)
        stopped = case.error(NDI()(case.local).chi)
        every = [
            case.error(NDI(residual=0.0, max_iterations=n)(case.local).chi)
            for n in (3, 5, 8, 12, 18, 25)
        ]
        assert stopped < 1.12 * min(every)


def test_scales_with_field_and_turn(phantom: Callable) -> None:
    local = replace(phantom(noise=0.002).local, radians_per_ppm=RADIANS)
    scaled = replace(
        local, field=20 * local.field, noise=20 * local.noise, radians_per_ppm=RADIANS / 20
    )
    reference = NDI()(local).chi
    assert (NDI()(scaled).chi / 20 - reference).norm() < 1e-3 * reference.norm()


def test_better_than_zeros_outside(phantom: Callable) -> None:
    case = phantom(noise=0.001)
    zeros = replace(case.local, field_support=torch.ones_like(case.local.mask))
    assert case.error(NDI()(case.local).chi) < 0.9 * case.error(NDI()(zeros).chi)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"regularisation": -1.0}, "regularisation"),
        ({"regularisation": math.nan}, "regularisation"),
        ({"residual": -1.0}, "residual"),
        ({"residual": math.nan}, "residual"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"padding": math.nan}, "padding"),
    ],
)
def test_refuses_parameters_out_of_range(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        NDI(**wrong)
