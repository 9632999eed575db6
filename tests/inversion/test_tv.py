"""Total variation: its minimum, what its lambda means, what it makes of the unknown outside."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.inversion.tv import TV
from qsmnet.inversion.unknown_field import DataTerm, noise_of_weighted
from qsmnet.volumes import LocalField, bounding_box

CONVERGED = {"max_iterations": 250, "tolerance": 0.0}


def objective(local: LocalField, chi: torch.Tensor, strength: float) -> float:
    """The stated one, evaluated on the caller's grid without any of the solver's code."""
    weight = local.data_weight().double()
    weight = weight / weight[weight > 0].mean()
    dipole = Dipole(chi.shape, local.geometry, padding=2.0, dtype=torch.float64)
    misfit = dipole.forward(chi.double()) - local.field.double()
    constant = (weight * misfit).sum() / weight.sum()
    data = 0.5 * (weight * (misfit - constant) ** 2).sum()
    total = 0.0
    for axis, edge in enumerate(local.geometry.voxel_size):
        inside = local.mask.narrow(axis, 1, chi.shape[axis] - 1)
        inside = inside & local.mask.narrow(axis, 0, chi.shape[axis] - 1)
        total += float((chi.diff(dim=axis).abs() / edge)[inside].sum())
    return float(data) + strength * total


@pytest.mark.parametrize("outside", ["weight", "fill"])
def test_is_the_minimum(outside: str, phantom: Callable) -> None:
    """No other map has a lower objective: not the truth, not the map moved towards anything."""
    case = phantom((20, 21, 22), (0.9, 1.0, 1.4), noise=0.003)
    method = TV(outside=outside, padding=2.0, **CONVERGED)
    strength = method.weight_of_gradient(case.local)
    chi = method(case.local).chi
    reached = objective(case.local, chi, strength)
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(chi.shape, generator=generator) * case.local.mask
    directions = [case.chi - chi, -chi, noise, -noise, chi.roll(1, 0) * case.local.mask - chi]
    for direction in directions:
        for step in (1.0, 0.1, 0.03):
            assert objective(case.local, chi + step * direction, strength) > reached * (1 - 1e-4)


def test_weight_and_fill_agree(phantom: Callable) -> None:
    """The majoriser and the splitting have one minimum; the splitting is there sooner."""
    case = phantom(noise=0.002)
    converged = {o: TV(outside=o, **CONVERGED)(case.local).chi for o in ("weight", "fill")}
    gap = (converged["weight"] - converged["fill"]).norm() / converged["weight"].norm()
    assert gap < 0.03


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_zeros_outside_are_worse(noise: float, phantom: Callable) -> None:
    case = phantom(noise=noise)
    errors = {o: case.error(TV(outside=o)(case.local).chi) for o in ("weight", "fill", "zero")}
    assert errors["weight"] < 0.8 * errors["zero"]
    assert errors["fill"] < 0.85 * errors["zero"]


def test_recovers_a_piecewise_constant_phantom(phantom: Callable) -> None:
    case = phantom((40, 42, 38))
    assert case.error(TV()(case.local).chi) < 0.15
    assert case.error(TV(regularisation=1e-5, max_iterations=120)(case.local).chi) < 0.08


def test_scales_with_field_and_lambda(phantom: Callable) -> None:
    """Field and lambda times s: chi times s, iteration by iteration."""
    local = phantom(noise=0.001).local
    reference = TV()(local).chi
    scaled = replace(local, field=local.field * 20, noise=local.noise * 20)
    chi = TV(regularisation=20 * TV().regularisation)(scaled).chi / 20
    assert (chi - reference).norm() < 1e-3 * reference.norm()


def test_lambda_does_not_hang_on_the_grid(phantom: Callable) -> None:
    """One object on voxels of 1 and 0.5 mm: the same lambda shrinks both alike."""
    coarse = phantom((24, 24, 24))
    fine = coarse.chi
    for axis in range(3):
        fine = fine.repeat_interleave(2, axis)
    mask = fine != 0
    geometry = Geometry((0.5, 0.5, 0.5), coarse.local.geometry.b0_dir)
    field = Dipole(fine.shape, geometry, padding=2.0).forward(fine) * mask
    local = LocalField(field, mask, geometry)
    method = TV(regularisation=1e-3, max_iterations=60, tolerance=1e-3)
    shrunk = [
        float((method(each).chi * truth).sum() / truth.square().sum())
        for each, truth in ((coarse.local, coarse.chi), (local, fine))
    ]
    assert shrunk[0] < 0.9
    assert shrunk[1] == pytest.approx(shrunk[0], abs=0.07)


def test_lambda_grows_with_the_noise(phantom: Callable) -> None:
    local = phantom(noise=0.002).local
    assert TV(1e-4, 0.05).weight_of_gradient(local) == pytest.approx(1e-4 + 0.05 * 0.002)
    assert TV(1e-4, 0.05).weight_of_gradient(replace(local, noise=None)) == 1e-4
    varying = torch.full_like(local.field, 0.002)
    varying[: local.field.shape[0] // 2] = 0.004
    level = noise_of_weighted(replace(local, noise=varying))
    assert 0.002 < level < 0.003


def test_one_excellent_voxel_does_not_change_the_rest(phantom: Callable) -> None:
    """W is relative to the best voxel; lambda follows the typical one."""
    case = phantom(noise=0.002)
    flat = torch.full_like(case.local.field, 0.002)
    peaked = flat.clone()
    peaked[15, 16, 14] = 0.0005
    errors = [case.error(TV()(replace(case.local, noise=sd)).chi) for sd in (flat, peaked)]
    assert errors[1] == pytest.approx(errors[0], abs=0.02)


def test_weights_help_where_the_noise_varies(phantom: Callable) -> None:
    case = phantom()
    sd = torch.full_like(case.chi, 0.001)
    sd[:, :, : case.chi.shape[2] // 2] = 0.02
    generator = torch.Generator().manual_seed(5)
    field = case.local.field + sd * torch.randn(sd.shape, generator=generator) * case.local.mask
    known = replace(case.local, field=field, noise=sd)
    weighted = case.error(TV()(known).chi)
    strength = TV().weight_of_gradient(known)
    unweighted = TV(regularisation=strength)(replace(known, noise=None)).chi
    assert weighted < 0.8 * case.error(unweighted)


def test_field_known_outside_of_the_mask_is_used(phantom: Callable) -> None:
    case = phantom(noise=0.0)
    full = Dipole(case.chi.shape, case.local.geometry, padding=2.0).forward(case.chi)
    wider = replace(case.local, field=full, field_support=torch.ones_like(case.local.mask))
    assert case.error(TV()(wider).chi) < case.error(TV()(case.local).chi)


def test_free_support_ignores_fields_of_outside_sources(phantom: Callable) -> None:
    """A strong source beyond the mask: a map confined to the mask cannot explain its field."""
    case = phantom((36, 36, 36))
    source = torch.zeros_like(case.chi)
    source[17:19, 17:19, 1:3] = 2.0
    dipole = Dipole(source.shape, case.local.geometry, padding=2.0)
    spoiled = replace(case.local, field=case.local.field + dipole.forward(source) * case.local.mask)
    errors = {s: case.error(TV(support=s)(spoiled).chi) for s in ("mask", "free")}
    assert errors["free"] < errors["mask"]


def test_constant_offset_is_free(phantom: Callable) -> None:
    local = phantom().local
    shifted = replace(local, field=(local.field + 0.5) * local.mask)
    reference, chi = (TV(tolerance=0.0)(each).chi for each in (local, shifted))
    assert (chi - reference).norm() < 0.05 * reference.norm()


@pytest.mark.parametrize("level", [-0.4, 0.4])
def test_mean_of_chi_is_found_within_the_default_iterations(
    level: float, phantom: Callable
) -> None:
    """It shows in the field by the mask's shape alone; iterations by themselves crawl to it."""
    case = phantom((40, 30, 24), noise=0.001)
    inside = case.local.mask
    raised = case.chi + level * inside
    dipole = Dipole(raised.shape, case.local.geometry, padding=2.0)
    local = replace(case.local, field=case.local.field + dipole.forward(level * inside) * inside)
    default, long = TV()(local).chi, TV(max_iterations=400, tolerance=0.0)(local).chi
    errors = [float((chi - raised)[inside].std()) for chi in (default, long)]
    assert errors[0] < 1.1 * errors[1]
    assert float(default[inside].mean()) == pytest.approx(float(long[inside].mean()), abs=0.02)


@torch.no_grad()
def test_sphere_has_no_level_to_find() -> None:
    axes = [torch.linspace(-1.4, 1.4, 24)] * 3
    mask = sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")) < 1
    noise = 0.005 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    chi = TV()(LocalField(noise * mask, mask, geometry, noise=0.005)).chi
    assert float(chi[mask].mean().abs()) < 0.01


def test_starts_from_a_given_map(phantom: Callable) -> None:
    """From its own solution it is there at once; the start does not move the end."""
    case = phantom()
    solution = TV(max_iterations=80, tolerance=0.0)(case.local).chi
    few = TV(max_iterations=8, tolerance=0.0)
    cold, warm = few(case.local).chi, few(case.local, initial=solution).chi
    assert (warm - solution).norm() < 0.5 * (cold - solution).norm()


def test_tolerance_stops_it(phantom: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = torch.fft.rfftn

    def counted(*args: object, **options: object) -> torch.Tensor:
        calls.append(1)
        return plain(*args, **options)

    monkeypatch.setattr(torch.fft, "rfftn", counted)
    local = phantom().local
    pairs = {}
    for tolerance in (0.0, 5e-3, 5e-2):
        calls.clear()
        TV(max_iterations=60, tolerance=tolerance)(local)
        pairs[tolerance] = len(calls)
    assert pairs[0.0] == 1 + 2 * 60
    assert pairs[5e-2] < pairs[5e-3] < pairs[0.0]


def test_data_term_crops_and_pads(phantom: Callable) -> None:
    local = phantom((30, 33, 28)).local
    data = DataTerm.of(local, "sampled", 1.25)
    assert data.box == bounding_box(local.mask)
    size = [part.stop - part.start for part in data.box]
    assert all(n >= round(1.25 * s) for n, s in zip(data.shape, size, strict=True))
    assert torch.equal(data.paste(data.pad(local.field), local), local.field * local.mask)
    assert float(data.weight.sum()) == float(local.mask.sum())


@pytest.mark.parametrize(
    "wrong",
    [
        {"regularisation": 0.0},
        {"noise_gain": -1.0},
        {"max_iterations": 0},
        {"tolerance": -1.0},
        {"padding": 0.9},
        {"padding": math.nan},
        {"padding": math.inf},
        {"noise_gain": math.nan},
        {"noise_gain": math.inf},
        {"regularisation": math.nan},
        {"regularisation": math.inf},
        {"tolerance": math.nan},
        {"tolerance": math.inf},
    ],
)
def test_refuses_parameters_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TV(**wrong)
