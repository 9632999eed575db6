"""The cone rule, and the strengths that it chooses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.errors import UsageError
from qsmnet.geometry import Geometry
from qsmnet.inversion.automatic import Automatic, search, strength_of
from qsmnet.inversion.cone_rule import Residual
from qsmnet.inversion.tikhonov import Tikhonov
from qsmnet.inversion.tkd import TKD
from qsmnet.inversion.tv import TV
from qsmnet.volumes import LocalField, Susceptibility, TotalField

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.2, -0.1, 0.95))
METHODS = {
    "tkd": (TKD(), [0.06, 0.1, 0.15, 0.2, 0.27, 0.36, 0.48]),
    "tikhonov": (Tikhonov(), [0.0005 * 3**k for k in range(7)]),
    "tv": (TV(noise_gain=0.0), [2e-5 * 3**k for k in range(7)]),
}


def with_strength(method: object, value: float) -> Callable[[LocalField], Susceptibility]:
    return replace(method, **{strength_of(method): value})


# --- what is measured


@pytest.mark.parametrize("shape", [(40, 36, 44), (37, 41, 39)])
def test_a_residual_without_direction_is_even(shape: tuple[int, int, int]) -> None:
    """White noise, coloured by nothing or by a filter that knows |k| alone."""
    mask = torch.ones(shape, dtype=torch.bool)
    dipole = Dipole(shape, GEOMETRY)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool3d(noise[None, None], 3, 1, 1)[0, 0]
    for field in (noise, smooth):
        kappa = Residual.of(LocalField(field, mask, dipole.geometry)).evenness(0 * field)
        assert kappa == pytest.approx(1.0, abs=0.12)


def test_field_of_an_object_is_off_the_cone() -> None:
    """Unexplained it makes kappa large; explained away with the noise off the cone, small."""
    shape, geometry = (40, 40, 40), GEOMETRY
    mask = torch.ones(shape, dtype=torch.bool)
    chi = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    dipole = Dipole(shape, geometry, padding=1.25)
    field = dipole.forward(chi) + 0.01 * torch.randn(shape)
    residual = Residual.of(LocalField(field, mask, geometry))
    assert residual.evenness(0 * chi) > 3
    assert residual.evenness(chi) == pytest.approx(1.0, abs=0.15)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    explained = TKD(threshold=0.05)(LocalField(noise, mask, geometry)).chi
    assert Residual.of(LocalField(noise, mask, geometry)).evenness(explained) < 0.6


def test_scale_offset_noise_map_and_smooth_fields_do_not_count(phantom: Callable) -> None:
    local = phantom((36, 38, 34), noise=0.002).local
    chi = TV()(local).chi
    kappa = Residual.of(local).evenness(chi)
    scaled = replace(local, field=50 * local.field)
    assert Residual.of(scaled).evenness(50 * chi) == pytest.approx(kappa, rel=1e-3)
    ramp = torch.linspace(0, 0.01, 36)[:, None, None] + 0.3
    drifting = replace(local, field=(local.field + ramp) * local.mask)
    assert Residual.of(drifting).evenness(chi) == pytest.approx(kappa, rel=0.05)
    assert Residual.of(replace(local, noise=None)).evenness(chi) == kappa


def test_grows_with_the_strength(phantom: Callable) -> None:
    local = phantom((36, 38, 34), noise=0.002).local
    residual = Residual.of(local)
    for method, values in METHODS.values():
        found = [residual.evenness(with_strength(method, v)(local).chi) for v in values[1::2]]
        assert found == sorted(found)


# --- what is chosen


# this phantom is what TV's prior describes, balls without texture: it wants more than a head
@pytest.mark.parametrize(("name", "within"), [("tkd", 1.05), ("tikhonov", 1.05), ("tv", 1.15)])
@pytest.mark.parametrize("noise", [0.001, 0.006])
def test_near_the_best_of_a_grid(name: str, within: float, noise: float, phantom: Callable) -> None:
    case = phantom((40, 42, 38), noise=noise)
    method, values = METHODS[name]
    best = min(case.error(with_strength(method, value)(case.local).chi) for value in values)
    assert case.error(Automatic(method)(case.local).chi) < within * best


@pytest.mark.parametrize("name", METHODS)
def test_more_error_wants_more_whatever_the_noise_map_says(name: str, phantom: Callable) -> None:
    chosen = []
    for noise in (0.002, 0.008, 0.032):
        local = replace(phantom((32, 34, 30), noise=noise).local, noise=0.001)
        chosen.append(Automatic(METHODS[name][0], tolerance=0.02)(local).chosen[0].value)
    assert chosen[0] < chosen[1] < chosen[2]


def test_error_of_the_model_counts(phantom: Callable) -> None:
    """Offsets by region, which no noise map knows of; TV's own rule takes them for structure."""
    case = phantom((40, 42, 38), noise=0.0005)
    generator = torch.Generator().manual_seed(3)
    values = case.chi[case.local.mask].unique()
    offsets = torch.randn(len(values), generator=generator)
    wrong = offsets[torch.searchsorted(values, case.chi.clamp(values[0], values[-1]))]
    spread = case.local.field[case.local.mask].std()
    field = (case.local.field + spread * wrong) * case.local.mask
    local = replace(case.local, field=field)
    assert case.error(Automatic(TV())(local).chi) < 0.8 * case.error(TV()(local).chi)


@pytest.mark.parametrize("name", METHODS)
def test_field_times_s_is_map_times_s(name: str, phantom: Callable) -> None:
    local = phantom((32, 34, 30), noise=0.002).local
    scaled = replace(local, field=30 * local.field, noise=30 * local.noise)
    chi, far = (Automatic(METHODS[name][0], tolerance=0.01)(each).chi for each in (local, scaled))
    assert (far / 30 - chi).norm() < 0.03 * chi.norm()


def test_map_is_the_inverters_own_with_the_chosen_value(phantom: Callable) -> None:
    local = phantom(noise=0.002).local
    found = Automatic(TV())(local)
    (choice,) = found.chosen
    assert choice.parameter == "regularisation"
    assert choice.settings == {"regularisation": choice.value, "noise_gain": 0.0}
    assert torch.equal(found.chi, TV(**choice.settings)(local).chi)
    assert [value for value, _ in choice.curve] == sorted(value for value, _ in choice.curve)
    assert dict(choice.curve)[choice.value] == pytest.approx(choice.target, rel=0.11)
    assert found.referenced_to_mean().chosen == found.chosen


def test_each_volume_of_a_batch_has_its_own(phantom: Callable) -> None:
    items = [phantom((26, 27, 28), noise=noise).local for noise in (0.001, 0.01)]
    batch = LocalField(
        torch.stack([each.field for each in items]),
        torch.stack([each.mask for each in items]),
        items[0].geometry,
    )
    found = Automatic(Tikhonov())(batch)
    alone = [Automatic(Tikhonov())(replace(each, noise=None)) for each in items]
    torch.testing.assert_close(found.chi, torch.stack([each.chi for each in alone]))
    assert [c.value for c in found.chosen] == [each.chosen[0].value for each in alone]
    assert found.chosen[0].value < found.chosen[1].value


def test_nothing_to_choose_by(phantom: Callable) -> None:
    local = phantom().local
    found = Automatic(TKD())(replace(local, field=0 * local.field))
    assert not found.chi.any()
    assert found.chosen == ()


def test_says_when_the_target_is_out_of_reach(phantom: Callable) -> None:
    found = Automatic(TKD(), target=50.0)(phantom().local)
    assert any("threshold" in flag for flag in found.flags)
    assert found.chosen[0].value < 2 / 3


# --- how it is looked for


@pytest.mark.parametrize("start", [1e-6, 0.3, 1e4])
def test_search_finds_the_zero(start: float) -> None:
    heights = (lambda x: 0.5 * math.log(x / 0.02), lambda x: math.atan(math.log(x / 0.02)))
    for height in heights:
        tried = search(height, start, 0.03, 12)
        assert min(tried, key=lambda x: abs(tried[x])) == pytest.approx(0.02, rel=0.07)


def test_search_stays_in_range() -> None:
    def height(value: float) -> float:
        return math.nan if not 0.01 < value < 0.6 else math.log(value / 0.5)

    tried = search(height, 0.1, 0.02, 12)
    assert all(0.01 < value < 0.6 for value in tried)
    assert min(map(abs, tried.values())) <= 0.02


@dataclass(frozen=True)
class _Plain:
    steps: int = 3
    takes: ClassVar[str] = "local_field"

    def __call__(self, local: LocalField, /) -> Susceptibility:
        return Susceptibility(local.field, local.mask)


@dataclass(frozen=True)
class _SingleStep:
    regularisation: float = 0.1
    takes: ClassVar[str] = "total_field"

    def __call__(self, total: TotalField, /) -> Susceptibility:
        return Susceptibility(total.field, total.mask)


@dataclass(frozen=True)
class _Free(Tikhonov):
    regularisation: float = 0.0

    def __post_init__(self) -> None:
        """Allow 0."""


def test_starts_without_regularisation(phantom: Callable) -> None:
    local = phantom(noise=0.002).local
    found, usual = (Automatic(each)(local).chosen[0].value for each in (_Free(), Tikhonov()))
    assert found == pytest.approx(usual, rel=0.3)


@dataclass(frozen=True)
class _Forgiving(Tikhonov):
    kappa_target: ClassVar[float] = 0.8


def test_a_method_may_declare_its_target(phantom: Callable) -> None:
    local = phantom(noise=0.002).local
    assert Automatic(_Forgiving())(local).chosen[0].target == 0.8
    assert Automatic(_Forgiving(), target=0.5)(local).chosen[0].target == 0.5
    assert Automatic(TV())(local).chosen[0].target == 0.65


def test_refuses_what_it_cannot_choose() -> None:
    with pytest.raises(UsageError, match="neither regularisation nor threshold"):
        Automatic(_Plain())
    with pytest.raises(UsageError, match="no strength 'steps'"):
        Automatic(_Plain(), "steps")
    with pytest.raises(UsageError, match="no single local field"):
        Automatic(_SingleStep())


@pytest.mark.parametrize(
    "wrong", [{"target": 0.0}, {"target": math.nan}, {"tolerance": -1.0}, {"max_solves": 0}]
)
def test_refuses_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Automatic(TKD(), **wrong)
