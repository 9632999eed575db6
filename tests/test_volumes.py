"""The nouns check themselves, and weigh and reference as they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmnet.geometry import Geometry
from qsmnet.volumes import LocalField, Scan, Susceptibility, TotalField, bounding_box

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
SHAPE = (4, 5, 6)


def half_mask() -> torch.Tensor:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:2] = True
    return mask


def test_shapes_must_agree() -> None:
    field, mask = torch.zeros(SHAPE), torch.ones((4, 5, 7), dtype=torch.bool)
    # the annotations of the arrays object first where they are checked, as in these tests
    with pytest.raises((ValueError, TypeError)):
        LocalField(field, mask, GEOMETRY)
    with pytest.raises((ValueError, TypeError)):
        TotalField(field, mask, GEOMETRY)
    with pytest.raises((ValueError, TypeError)):
        LocalField(field, half_mask(), GEOMETRY, noise=torch.zeros(4, 5, 7))


def test_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        LocalField(torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool), GEOMETRY)


def test_one_echo_time_an_echo() -> None:
    echoes = torch.zeros(2, *SHAPE)
    with pytest.raises(ValueError, match="3 echo times for 2 echoes"):
        Scan(echoes, echoes, (0.004, 0.008, 0.012), 7.0, GEOMETRY)


def test_field_is_known_on_the_mask_unless_stated() -> None:
    local = LocalField(torch.zeros(SHAPE), half_mask(), GEOMETRY)
    assert torch.equal(local.support, half_mask().float())
    everywhere = torch.ones(SHAPE, dtype=torch.bool)
    wider = LocalField(torch.zeros(SHAPE), half_mask(), GEOMETRY, field_support=everywhere)
    assert torch.equal(wider.support, torch.ones(SHAPE))


def test_data_weight_is_relative_inverse_variance() -> None:
    noise = torch.full(SHAPE, 0.004)
    noise[0] = 0.002
    noise[3] = 0.0001  # unknown there: it must not set the scale
    weight = LocalField(torch.zeros(SHAPE), half_mask(), GEOMETRY, noise=noise).data_weight()
    torch.testing.assert_close(weight[0], torch.ones(SHAPE[1:]))
    torch.testing.assert_close(weight[1], torch.full(SHAPE[1:], 0.25))
    assert not weight[2:].any()


@pytest.mark.parametrize("missing", [0.0, -1.0, float("nan")])
def test_noise_that_is_not_known_is_the_median_not_the_least(missing: float) -> None:
    noise = torch.full(SHAPE, missing)
    noise[0], noise[1, :3], noise[1, 3:] = 0.004, 0.002, 0.008
    everywhere = torch.ones(SHAPE, dtype=torch.bool)
    local = LocalField(torch.zeros(SHAPE), half_mask(), GEOMETRY, everywhere, noise)
    weight = local.data_weight()
    torch.testing.assert_close(weight[0], torch.full(SHAPE[1:], 0.25))
    torch.testing.assert_close(weight[1, :3], torch.ones(3, 6))
    torch.testing.assert_close(weight[1, 3:], torch.full((2, 6), 1 / 16))
    # 0.004: the median of what is known
    torch.testing.assert_close(weight[2:], torch.full((2, *SHAPE[1:]), 0.25))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.floats(0.0, 0.9))
def test_data_weight_is_a_share_whatever_the_unit(seed: int, unit: float, missing: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = 0.01 * torch.rand(SHAPE, generator=generator) ** 4 + 1e-6
    noise[torch.rand(SHAPE, generator=generator) < missing] = 0.0
    support = torch.rand(SHAPE, generator=generator)
    support[torch.rand(SHAPE, generator=generator) < 0.3] = 0.0
    weights = [
        LocalField(torch.zeros(SHAPE), half_mask(), GEOMETRY, support, each).data_weight()
        for each in (noise, noise * unit)
    ]
    assert float(weights[0].min()) >= 0
    assert bool((weights[0] <= support).all())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-7)
    # the weights rank voxels as their noise does
    known = (support > 0) & (noise > 0)
    order = noise[known].argsort()
    assert bool(((weights[0] / support)[known][order].diff() <= 1e-6).all())


@pytest.mark.parametrize("noise", [None, 0.003, torch.zeros(SHAPE)])
def test_data_weight_without_a_map_is_the_support(noise: float | torch.Tensor | None) -> None:
    local = LocalField(torch.zeros(SHAPE), half_mask(), GEOMETRY, noise=noise)
    assert torch.equal(local.data_weight(), local.support)


def test_bounding_box_of_a_plane_is_as_thick_as_is_asked_for() -> None:
    mask = torch.zeros((5, 6, 7), dtype=torch.bool)
    mask[1:4, 5, 2:6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(5, 6), slice(2, 6))
    assert bounding_box(mask, least=2) == (slice(1, 4), slice(4, 6), slice(2, 6))


def test_noise_level() -> None:
    noise = torch.full(SHAPE, 100.0)
    noise[0], noise[1] = 0.003, 0.004
    field = torch.zeros(SHAPE)
    assert LocalField(field, half_mask(), GEOMETRY).noise_level() == 0.0
    assert LocalField(field, half_mask(), GEOMETRY, noise=0.002).noise_level() == 0.002
    level = LocalField(field, half_mask(), GEOMETRY, noise=noise).noise_level()
    assert level == pytest.approx((0.5 * (0.003**2 + 0.004**2)) ** 0.5)


def test_referenced_to_mean() -> None:
    chi = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    mask = half_mask().expand(2, *SHAPE)
    referenced = Susceptibility(chi, mask, flags=("a warning",)).referenced_to_mean()
    assert referenced.reference == "brain_mean"
    assert referenced.flags == ("a warning",)
    for item in referenced.chi:
        assert float(item[half_mask()].mean()) == pytest.approx(0.0, abs=1e-7)
        assert not item[~half_mask()].any()
