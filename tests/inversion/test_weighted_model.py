"""The weighted data term: symmetric, blind to what it eliminates, and right about it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.inversion.support import is_free
from qsmnet.inversion.weighted_model import WeightedModel


def model_of(case, support: str = "mask") -> WeightedModel:
    noise = torch.full_like(case.chi, 0.002)
    noise[:, :, ::2] = 0.006
    return WeightedModel.of(replace(case.local, noise=noise), support, "sampled", 1.25)


@pytest.mark.parametrize("support", ["mask", "free"])
def test_normal_is_symmetric_and_not_negative(support: str, phantom: Callable) -> None:
    model = model_of(phantom((20, 21, 22), (0.9, 1.0, 1.4)), support)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(model.data.shape, generator=generator) * model.support for _ in range(2))
    one, other = float((model.normal(x) * y).sum()), float((x * model.normal(y)).sum())
    power = float((model.normal(x) * x).sum())
    assert one == pytest.approx(other, abs=1e-4 * power)
    assert power > 0


def test_target_is_the_slope_of_the_misfit(phantom: Callable) -> None:
    """Of sum W r^2 / 2 with the best constant and level, by finite differences."""
    model = model_of(phantom((20, 21, 22)))
    known = float((model.weight > 0).sum())

    def half(chi: torch.Tensor) -> float:
        residual = model.centred(model.data.field - model.field_of(chi))
        return 0.5 * known * model.misfit(residual)

    generator = torch.Generator().manual_seed(1)
    way = torch.randn(model.data.shape, generator=generator) * model.support * 0.01
    slope = (half(way) - half(-way)) / 2
    assert slope == pytest.approx(-float((model.target() * way).sum()), rel=0.03)


def test_weight_is_one_on_average(phantom: Callable) -> None:
    model = model_of(phantom((20, 21, 22)))
    assert float(model.weight[model.weight > 0].mean()) == pytest.approx(1.0, rel=1e-5)


def test_a_constant_of_the_field_is_not_seen(phantom: Callable) -> None:
    model = model_of(phantom((20, 21, 22)))
    inside = (model.weight > 0).float()
    left = model.centred(0.7 * inside.clone()) * model.weight
    assert left.abs().max() < 1e-4


def test_level_is_found_and_taken_out(phantom: Callable) -> None:
    case = phantom((30, 20, 14))
    inside = case.local.mask.float()
    field = Dipole(inside.shape, case.local.geometry, padding=2.0).forward(0.3 * inside) * inside
    local = replace(case.local, field=field)
    model = WeightedModel.of(local, "mask", "sampled", 2.0)
    assert model.level(model.data.field) == pytest.approx(0.3, abs=0.02)
    left = model.centred(model.data.field.clone()) * model.weight
    assert left.norm() < 0.2 * (model.data.field * model.weight).norm()
    chi = model.with_level(torch.zeros_like(model.data.field))
    assert float(model.data.paste(chi, local)[case.local.mask].mean()) == pytest.approx(
        0.3, abs=0.02
    )


def test_support_follows_the_background_removal(phantom: Callable) -> None:
    local = phantom((20, 21, 22)).local
    removed = replace(local, harmonic_removed=True)
    assert [is_free("auto", each) for each in (local, removed)] == [False, True]
    assert is_free("free", local)
    assert not is_free("mask", removed)
    assert WeightedModel.of(removed, "auto", "sampled", 1.25).uniform is None


def test_the_level_is_not_left_to_the_iterations(phantom: Callable) -> None:
    """The data term's own slowest mode: what is eliminated of it is all that there is."""
    local = phantom((40, 30, 24)).local
    model = WeightedModel.of(local, "mask", "sampled", 1.25)
    left, power = model.centred(model.uniform.field.clone()), model.uniform.field.norm()
    assert (model.weight * left).norm() < 2e-3 * power
