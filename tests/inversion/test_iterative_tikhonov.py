"""Weighted Tikhonov: the minimum it states, what lambda means, what is unknown."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.inversion.iterative_tikhonov import IterativeTikhonov
from qsmnet.inversion.tikhonov import Tikhonov
from qsmnet.volumes import LocalField

CONVERGED = {"max_iterations": 200, "tolerance": 1e-5}


def objective(local: LocalField, chi: torch.Tensor, strength: float, penalty: str) -> float:
    """The stated one, evaluated on the caller's grid without any of the solver's code."""
    weight = local.data_weight().double()
    weight = weight / weight[weight > 0].mean()
    dipole = Dipole(chi.shape, local.geometry, padding=2.0, dtype=torch.float64)
    misfit = dipole.forward(chi.double()) - local.field.double()
    misfit = misfit - (weight * misfit).sum() / weight.sum()
    data = float(0.5 * (weight * misfit**2).sum())
    if penalty == "identity":
        return data + 0.5 * strength * float((chi - chi[local.mask].mean())[local.mask].norm()) ** 2
    total = 0.0
    for axis, edge in enumerate(local.geometry.voxel_size):
        inside = local.mask.narrow(axis, 1, chi.shape[axis] - 1)
        inside = inside & local.mask.narrow(axis, 0, chi.shape[axis] - 1)
        total += float((chi.double().diff(dim=axis) / edge)[inside].square().sum())
    return data + 0.5 * strength * total


def varying(local: LocalField) -> LocalField:
    noise = torch.full_like(local.field, 0.002)
    noise[:, ::3] = 0.008
    return replace(local, noise=noise)


@pytest.mark.parametrize(("penalty", "strength"), [("identity", 0.02), ("gradient", 0.05)])
def test_is_the_minimum(penalty: str, strength: float, phantom: Callable) -> None:
    case = phantom((20, 21, 22), (0.9, 1.0, 1.4), noise=0.003)
    local = varying(case.local)
    method = IterativeTikhonov(strength, penalty, padding=2.0, **CONVERGED)
    chi = method(local).chi
    reached = objective(local, chi, strength, penalty)
    noise = 0.05 * torch.randn(chi.shape, generator=torch.Generator().manual_seed(0)) * local.mask
    shifted = chi.roll(1, 0) * local.mask - chi
    for direction in (case.chi - chi, -chi, noise, shifted):
        for step in (1.0, 0.1, -0.1, 0.03):
            other = objective(local, chi + step * direction, strength, penalty)
            assert other > reached * (1 - 1e-4)


def test_equals_the_closed_form_where_all_is_known(phantom: Callable) -> None:
    """On a periodic grid that is known everywhere, with one weight."""
    shape = (15, 16, 18)
    field = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    field -= field.mean()
    local = LocalField(
        field, torch.ones(shape, dtype=torch.bool), Geometry((1, 1.1, 1.3), (0.15, -0.2, 0.95))
    )
    found = IterativeTikhonov(0.02, "identity", padding=1.0, **CONVERGED)(local).chi
    closed = Tikhonov(0.02, padding=1.0)(local).chi
    torch.testing.assert_close(found - found.mean(), closed, rtol=0, atol=2e-3)


def test_preconditioner_needs_few_iterations(phantom: Callable) -> None:
    """Where the weights vary too: at the default tolerance the map is nearly the converged one."""
    local = varying(phantom(noise=0.002).local)
    for penalty, strength, limit in (("identity", 0.005, 12), ("gradient", 0.003, 20)):
        method = IterativeTikhonov(strength, penalty, max_iterations=limit, tolerance=0.0)
        converged = replace(method, **CONVERGED)(local).chi
        assert (method(local).chi - converged).norm() < 0.05 * converged.norm()


@pytest.mark.parametrize("penalty", ["identity", "gradient"])
def test_better_than_zeros_outside(penalty: str, phantom: Callable) -> None:
    case = phantom(noise=0.001)
    zeros = replace(case.local, field_support=torch.ones_like(case.local.mask))
    method = IterativeTikhonov(0.005, penalty)
    assert case.error(method(case.local).chi) < 0.9 * case.error(method(zeros).chi)


def test_gradient_fills_the_cone_better(phantom: Callable) -> None:
    case = phantom((36, 38, 34), noise=0.001)
    errors = {
        penalty: min(
            case.error(IterativeTikhonov(strength, penalty)(case.local).chi)
            for strength in (0.001, 0.003, 0.01)
        )
        for penalty in ("identity", "gradient")
    }
    assert errors["gradient"] < 0.9 * errors["identity"]


def test_weights_help_where_the_noise_varies(phantom: Callable) -> None:
    case = phantom()
    sd = torch.full_like(case.chi, 0.001)
    sd[:, :, : case.chi.shape[2] // 2] = 0.02
    generator = torch.Generator().manual_seed(5)
    field = case.local.field + sd * torch.randn(sd.shape, generator=generator) * case.local.mask
    known = replace(case.local, field=field, noise=sd)
    errors = [
        case.error(IterativeTikhonov(0.01)(each).chi)
        for each in (known, replace(known, noise=None))
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("penalty", ["identity", "gradient"])
def test_lambda_follows_the_voxel_as_stated(penalty: str, phantom: Callable) -> None:
    """No unit, or mm^2: on voxels twice as large the same, or four times as much."""
    local = phantom((24, 25, 26), noise=0.001).local
    coarser = replace(
        local,
        geometry=Geometry(tuple(2 * d for d in local.geometry.voxel_size), (0.15, -0.2, 0.95)),
    )
    factor = 4.0 if penalty == "gradient" else 1.0
    reference = IterativeTikhonov(0.01, penalty, **CONVERGED)(local).chi
    chi = IterativeTikhonov(0.01 * factor, penalty, **CONVERGED)(coarser).chi
    assert (chi - reference).norm() < 5e-3 * reference.norm()
    unscaled = IterativeTikhonov(0.01 * 4.0 / factor, penalty, **CONVERGED)(coarser).chi
    assert (unscaled - reference).norm() > 5e-2 * reference.norm()


@pytest.mark.parametrize("penalty", ["identity", "gradient"])
def test_mean_of_chi_is_not_shrunk(penalty: str, phantom: Callable) -> None:
    case = phantom((40, 30, 24), noise=0.001)
    inside = case.local.mask
    dipole = Dipole(case.chi.shape, case.local.geometry, padding=2.0)
    raised = dipole.forward(0.4 * inside) * inside
    local = replace(case.local, field=case.local.field + raised)
    method = IterativeTikhonov(0.01, penalty, padding=2.0)
    plain, found = (method(each).chi[inside] for each in (case.local, local))
    assert float((found - plain).mean()) == pytest.approx(0.4, abs=0.04)
    assert float((found - plain).std()) < 0.02


def test_constant_offset_is_free(phantom: Callable) -> None:
    local = phantom().local
    shifted = replace(local, field=(local.field + 0.5) * local.mask)
    reference, chi = (IterativeTikhonov()(each).chi for each in (local, shifted))
    assert (chi - reference).norm() < 0.02 * reference.norm()


def test_free_support_ignores_fields_of_outside_sources(phantom: Callable) -> None:
    case = phantom((36, 36, 36))
    source = torch.zeros_like(case.chi)
    source[17:19, 17:19, 1:3] = 8.0
    dipole = Dipole(source.shape, case.local.geometry, padding=2.0)
    spoiled = replace(case.local, field=case.local.field + dipole.forward(source) * case.local.mask)
    errors = {s: case.error(IterativeTikhonov(support=s)(spoiled).chi) for s in ("mask", "free")}
    assert errors["free"] < errors["mask"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"regularisation": 0.0}, "regularisation"),
        ({"regularisation": math.nan}, "regularisation"),
        ({"regularisation": math.inf}, "regularisation"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"padding": math.nan}, "padding"),
    ],
)
def test_refuses_parameters_out_of_range(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        IterativeTikhonov(**wrong)
