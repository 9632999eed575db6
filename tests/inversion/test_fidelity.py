"""Proximal steps of the data terms, against a search over all residuals."""

import math

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.inversion.fidelity import Absolute, Nonlinear, Quadratic
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.volumes import LocalField

SCALE = 20.0  # rad/ppm


@pytest.fixture(scope="module")
def data() -> DataTerm:
    """Field within 0.3 turns, noise that varies threefold, half of the voxels unknown."""
    generator = torch.Generator().manual_seed(0)
    shape = (8, 9, 10)
    field = 0.1 * torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.5
    noise = 0.001 * (1 + 2 * torch.rand(shape, generator=generator))
    geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    return DataTerm.of(LocalField(field * mask, mask, geometry, noise=noise), "sampled", 1.25)


def nonlinear_cost(residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * (1 - torch.cos(SCALE * residual)) / SCALE**2


def absolute_cost(residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight.sqrt() * 2 * torch.sin(SCALE * residual / 2).abs() / SCALE


@pytest.mark.parametrize(("kind", "cost"), [(Nonlinear, nonlinear_cost), (Absolute, absolute_cost)])
def test_proximal_step_is_the_best_residual(kind: type, cost, data: DataTerm) -> None:
    """Within turns and beyond; a search on a fine grid finds nothing much better."""
    term = kind(data, SCALE)
    wanted = torch.linspace(-0.5, 0.5, term.weight.numel())  # 1.6 turns to either side
    found = term._proximal(wanted.clone()).double()
    tried = torch.linspace(-0.6, 0.6, 4001, dtype=torch.float64)

    def total(residual: torch.Tensor, weight: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        return cost(residual, weight) + 0.5 * term.penalty * (residual - near) ** 2

    weight, near = term.weight.double(), wanted.double()
    best = total(tried[:, None], weight, near).min(0).values
    gap = total(found, weight, near) - best
    assert float(gap.max()) < 0.02 * float(best.max())


def test_newton_never_overshoots(data: DataTerm) -> None:
    term = Nonlinear(data, SCALE)
    wanted = torch.linspace(-math.pi, math.pi, term.weight.numel()) / SCALE
    found = term._proximal(wanted.clone())
    assert bool((found * wanted >= 0).all())
    assert bool((found.abs() <= wanted.abs() + 1e-6).all())


def test_nonlinear_term_is_quadratic_for_small_phase(data: DataTerm) -> None:
    model = 0.05 * torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    linear, small = Quadratic(data), Nonlinear(data, 1e-2)
    for term in (linear, small):
        term.start(model.clone())
    targets = [term.target(torch.empty_like(model)) for term in (linear, small)]
    # the constant of the second is a step behind
    targets = [term.target(torch.empty_like(model)) for term in (linear, small)]
    torch.testing.assert_close(targets[1], targets[0], rtol=0, atol=1e-3)


def test_whole_turns_are_not_seen(data: DataTerm) -> None:
    term = Nonlinear(data, SCALE, constant=False)
    residual = torch.linspace(-0.1, 0.1, term.weight.numel())
    turn = 2 * math.pi / SCALE
    found = term._proximal(residual.clone())
    shifted = term._proximal(residual + 3 * turn) - 3 * turn
    torch.testing.assert_close(shifted, found, rtol=0, atol=1e-5)


def test_absolute_term_holds_small_residuals_at_zero(data: DataTerm) -> None:
    term = Absolute(data, None)
    assert not term._proximal(0.9 * term.bound).any()
    torch.testing.assert_close(term._proximal(3 * term.bound), 2 * term.bound)
