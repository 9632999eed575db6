"""L1 and hybrid data terms: outliers that the noise map does not know."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.inversion.hdqsm import HDQSM
from qsmnet.inversion.l1 import L1
from qsmnet.inversion.tv import TV
from qsmnet.volumes import LocalField

SCALE = 17.0  # rad/ppm


def with_outliers(local: LocalField, share: float = 0.01) -> LocalField:
    """Uniform numbers within +-0.15 ppm in a share of the voxels, at no larger stated noise."""
    generator = torch.Generator().manual_seed(2)
    wrong = (torch.rand(local.field.shape, generator=generator) < share) & local.mask
    number = 0.3 * (torch.rand(local.field.shape, generator=generator) - 0.5)
    return replace(local, field=torch.where(wrong, number, local.field), radians_per_ppm=SCALE)


@pytest.mark.parametrize("method", [L1(), L1(nonlinear=False), HDQSM()])
def test_outliers_cost_less_than_with_tv(method: L1 | HDQSM, phantom: Callable) -> None:
    case = phantom(noise=0.001)
    spoiled = with_outliers(case.local)
    assert case.error(method(spoiled).chi) < 0.7 * case.error(TV()(spoiled).chi)


@pytest.mark.parametrize(("method", "factor"), [(L1(), 1.4), (HDQSM(), 1.2)])
def test_gaussian_noise_alone(method: L1 | HDQSM, factor: float, phantom: Callable) -> None:
    """Where TV has the right model, little is lost."""
    case = phantom(noise=0.001)
    assert case.error(method(case.local).chi) < factor * case.error(TV()(case.local).chi)


def test_l1_goes_with_the_field_at_one_lambda(phantom: Callable) -> None:
    local = replace(phantom(noise=0.001).local, noise=None, radians_per_ppm=SCALE)
    scaled = replace(local, field=20 * local.field, radians_per_ppm=SCALE / 20)
    reference, chi = (L1()(each).chi for each in (local, scaled))
    assert (chi / 20 - reference).norm() < 1e-3 * reference.norm()


def test_l1_says_where_it_is_linear(phantom: Callable) -> None:
    local = phantom((20, 21, 22)).local
    unknown = L1()(local)
    assert "radians_per_ppm" in unknown.flags[0]
    assert torch.equal(unknown.chi, L1(nonlinear=False)(local).chi)
    assert not L1(nonlinear=False)(local).flags
    assert not L1()(replace(local, radians_per_ppm=SCALE)).flags


def test_one_voxel_far_off_does_not_set_the_weights(phantom: Callable) -> None:
    """With the largest residual as their scale it would."""
    case = phantom(noise=0.001)
    spoiled = with_outliers(case.local)
    field = spoiled.field.clone()
    field[15, 16, 14] += 1.0
    worse = replace(spoiled, field=field)
    errors = [case.error(HDQSM(quantile=q)(worse).chi) for q in (0.99, 1.0)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize(
    "wrong",
    [{"quantile": 0.0}, {"quantile": math.nan}, {"quantile": 1.1}],
)
def test_refuses_parameters_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HDQSM(**wrong)
    with pytest.raises(ValueError, match="regularisation"):
        HDQSM(first_regularisation=math.nan)
