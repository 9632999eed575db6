"""MEDI: its minimum, edges, phases, outliers, uniform fluid and spherical mean."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.errors import InconsistentError, UsageError
from qsmnet.geometry import Geometry
from qsmnet.inversion.edge_mask import smooth_steps
from qsmnet.inversion.medi import MEDI
from qsmnet.inversion.spherical_mean import above_spherical_mean
from qsmnet.inversion.tv import TV
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.volumes import LocalField

CONVERGED = {"max_iterations": 80, "tolerance": 0.0}
RADIANS = 20.0  # a ppm, such as at 3 T and 25 ms
#: Everything that TV does not have is off.
AS_TV = {"regularisation": 2e-5, "noise_gain": 0.06, "edge_share": 0.0, "merit": 0.0}


def objective(local: LocalField, chi: torch.Tensor, strength: float, share: float) -> float:
    """The stated one, on the caller's grid without the solver's code; c by a line search."""
    weight = local.data_weight().double()
    weight = weight / weight[weight > 0].mean()
    dipole = Dipole(chi.shape, local.geometry, padding=2.0, dtype=torch.float64)
    misfit = dipole.forward(chi.double()) - local.field.double()
    phases = local.radians_per_ppm * (misfit + torch.linspace(-0.01, 0.01, 401).view(-1, 1, 1, 1))
    data = ((weight * (1 - phases.cos())).sum((1, 2, 3)) / local.radians_per_ppm**2).min()
    smooth = smooth_steps(local.magnitude, local.mask.float(), local.geometry.voxel_size, share)
    total = sum(
        (m * (chi.roll(-1, axis) - chi).abs()).sum() / local.geometry.voxel_size[axis]
        for axis, m in enumerate(smooth)
    )
    return float(data) + strength * float(total)


def with_magnitude(phantom: Callable, **options: object) -> tuple:
    """A phantom whose magnitude has the edges of its susceptibility, and its field as a phase."""
    case = phantom(**options)
    magnitude = (1.0 + case.chi) * case.local.mask
    return case, replace(case.local, magnitude=magnitude, radians_per_ppm=RADIANS)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_is_the_minimum(share: float, phantom: Callable) -> None:
    """No other map has a lower objective: not the truth, not the map moved towards anything."""
    case, local = with_magnitude(
        phantom, shape=(20, 21, 22), voxel_size=(0.9, 1.0, 1.4), noise=0.01
    )
    method = MEDI(edge_share=share, merit=0.0, padding=2.0, **CONVERGED)
    strength = method.weight_of_gradient(local)
    chi = method(local).chi
    reached = objective(local, chi, strength, share)
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(chi.shape, generator=generator) * local.mask
    linear = MEDI(edge_share=share, merit=0.0, padding=2.0, **CONVERGED)(
        replace(local, radians_per_ppm=None)
    ).chi
    directions = [case.chi - chi, -chi, noise, -noise, linear - chi]
    for direction in directions:
        for step in (1.0, 0.1, 0.03):
            moved = objective(local, chi + step * direction, strength, share)
            assert moved > reached * (1 - 1e-4)


def test_without_edges_and_phases_it_is_tv(phantom: Callable) -> None:
    local = phantom(noise=0.002).local
    torch.testing.assert_close(MEDI(**AS_TV)(local).chi, TV()(local).chi, rtol=0, atol=1e-7)


def test_small_phases_are_linear(phantom: Callable) -> None:
    """As phases get small, the minimum is that of TV with the same lambda."""
    local = phantom(noise=0.001).local
    # as many iterations as the linear ones and the others together
    reference = TV(max_iterations=48, tolerance=0.0)(local).chi
    nearly = MEDI(**AS_TV, tolerance=0.0)(replace(local, radians_per_ppm=0.1)).chi
    assert (nearly - reference).norm() < 2e-3 * reference.norm()


def test_whole_turns_of_phase_do_not_matter(
    phantom: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first steps are not linear: every voxel may be any number of turns off."""
    local = replace(phantom(noise=0.001).local, radians_per_ppm=RADIANS, harmonic_removed=True)
    generator = torch.Generator().manual_seed(2)
    turns = torch.randint(-2, 3, local.mask.shape, generator=generator) * local.mask
    wrapped = replace(local, field=local.field + turns * 2 * math.pi / RADIANS)
    # the step of the shrinkage follows the spread of the field
    monkeypatch.setattr(DataTerm, "scale", lambda _: 0.01)
    chi, reference = (MEDI(merit=0.0, linear_iterations=0)(each).chi for each in (wrapped, local))
    assert (chi - reference).norm() < 1e-2 * reference.norm()


def test_strong_sources_are_not_lost_to_wraps(phantom: Callable) -> None:
    """Fields of more than a turn: the first, linear steps tell which turn is meant."""
    case = phantom()
    strong = replace(case.local, field=20 * case.local.field, radians_per_ppm=RADIANS)
    assert RADIANS * float(strong.field.abs().max()) > math.pi
    chi = MEDI(**{**AS_TV, "regularisation": 4e-4})(strong).chi / 20
    assert case.error(chi) < 1.2 * case.error(TV()(case.local).chi)


def test_true_edges_help(phantom: Callable) -> None:
    case, local = with_magnitude(phantom, noise=0.002)
    spared, unspared = (MEDI(edge_share=share)(local) for share in (0.15, 0.0))
    assert case.error(spared.chi) < 0.8 * case.error(unspared.chi)


def test_merit_lets_outliers_go(phantom: Callable) -> None:
    case = phantom(noise=0.001)
    generator = torch.Generator().manual_seed(3)
    wrong = (torch.rand(case.chi.shape, generator=generator) < 0.005) & case.local.mask
    spoiled = replace(case.local, field=case.local.field + 0.1 * wrong)
    errors = [case.error(MEDI(**{**AS_TV, "merit": m})(spoiled).chi) for m in (6.0, 0.0)]
    assert errors[0] < 0.7 * errors[1]
    # of noise alone none is an outlier
    clean = [MEDI(**{**AS_TV, "merit": m})(case.local).chi for m in (6.0, 0.0)]
    assert (clean[0] - clean[1]).norm() < 0.02 * clean[1].norm()


@pytest.mark.parametrize("harmonic_removed", [False, True])
def test_fluid_is_drawn_together_about_its_own_mean(
    harmonic_removed: bool, phantom: Callable
) -> None:
    case = phantom(noise=0.01)
    fluid = torch.zeros_like(case.local.mask)
    fluid[12:18, 13:19, 10:18] = True
    chi = torch.where(fluid, 0.3, case.chi)
    dipole = Dipole(chi.shape, case.local.geometry, padding=2.0)
    field = case.local.field + dipole.forward(chi - case.chi) * case.local.mask
    local = replace(case.local, field=field, csf=fluid, harmonic_removed=harmonic_removed)
    settled = {"max_iterations": 80, "tolerance": 0.0}
    maps = {w: MEDI(csf_weight=w, **settled)(local).chi for w in (0.0, 1.0)}
    spread = {weight: float(found[fluid].std()) for weight, found in maps.items()}
    assert spread[1.0] < 0.3 * spread[0.0]
    # to its mean, not to zero
    expected = chi[fluid].mean() - chi[case.local.mask].mean()
    found = maps[1.0][fluid].mean() - maps[1.0][case.local.mask].mean()
    assert float(found) == pytest.approx(float(expected), rel=0.15)


def test_spherical_mean_removes_fields_of_outside_sources(phantom: Callable) -> None:
    case = phantom((36, 36, 36))
    source = torch.zeros_like(case.chi)
    source[17:19, 17:19, 1:3] = 20.0
    outside = Dipole(source.shape, case.local.geometry, "prism", 2.0).forward(source)
    spoiled = replace(case.local, field=(case.local.field + outside) * case.local.mask)
    kept = above_spherical_mean(spoiled, 4.0).support > 0
    residue = above_spherical_mean(replace(spoiled, field=outside * spoiled.mask), 4.0).field[kept]
    assert residue.norm() < 0.05 * outside[kept].norm()
    smv, plain = MEDI(smv_radius=4.0)(spoiled), MEDI()(spoiled)
    assert torch.equal(smv.mask, kept & case.local.mask)
    inside = replace(case, local=replace(case.local, mask=smv.mask))
    assert inside.error(smv.chi) < 0.5 * inside.error(plain.chi)


def test_noise_above_the_spherical_mean(phantom: Callable) -> None:
    local = phantom().local
    uniform = above_spherical_mean(replace(local, noise=torch.full_like(local.field, 0.01)), 3.0)
    inside = uniform.support > 0
    expected = torch.full_like(local.field, 0.01 * math.sqrt(2))[inside]
    torch.testing.assert_close(uniform.noise[inside], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_share_of_edges_is_exact_and_in_mm(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    magnitude = torch.rand((14, 15, 16), generator=generator)
    support = torch.zeros_like(magnitude)
    support[2:12, 1:13, 3:15] = 1
    voxel = (1.0, 1.0, 4.0)
    smooth = smooth_steps(magnitude, support, voxel, share)
    inside = smooth_steps(magnitude, support, voxel, 0.0)
    spared = [float((i - s).sum()) for i, s in zip(inside, smooth, strict=True)]
    assert sum(spared) / sum(float(i.sum()) for i in inside) == pytest.approx(share, abs=1e-3)
    # a step over 4 mm is the flatter one
    assert share == 0.9 or spared[2] == 0


def test_edges_of_a_box_lie_at_its_faces() -> None:
    magnitude = torch.ones((12, 12, 12))
    magnitude[4:8, 4:8, 4:8] = 2
    support = torch.ones_like(magnitude)
    for axis, smooth in enumerate(smooth_steps(magnitude, support, (1.0, 1.0, 1.0), 0.05)):
        along = smooth.movedim(axis, 0)[:, 5, 5]
        assert along.tolist() == [1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0]


def test_says_what_it_was_not_given(phantom: Callable) -> None:
    _, local = with_magnitude(phantom)
    assert MEDI(max_iterations=1)(local).flags == ()
    flags = MEDI(max_iterations=1)(replace(local, radians_per_ppm=None, magnitude=None)).flags
    assert "linear" in flags[0]
    assert "magnitude" in flags[1]


def test_turned_with_its_magnitude(phantom: Callable) -> None:
    _, local = with_magnitude(phantom, shape=(24, 26, 22), voxel_size=(0.9, 1.0, 1.3), noise=0.001)
    chi = MEDI()(local).chi
    turned = MEDI()(
        replace(
            local,
            field=local.field.rot90(1, (0, 1)),
            mask=local.mask.rot90(1, (0, 1)),
            magnitude=local.magnitude.rot90(1, (0, 1)),
            geometry=Geometry((1.0, 0.9, 1.3), (0.2, 0.15, 0.95)),
        )
    ).chi
    expected = chi.rot90(1, (0, 1))
    assert (turned - expected).norm() < 2e-3 * expected.norm()


def test_spherical_mean_refuses_radii_that_do_not_fit(phantom: Callable) -> None:
    local = phantom((24, 24, 24), (1.0, 1.0, 2.0)).local
    with pytest.raises(UsageError, match="smv_radius"):
        MEDI(smv_radius=1.5)(local)
    with pytest.raises(InconsistentError, match="30 mm"):
        MEDI(smv_radius=30.0)(local)


@pytest.mark.parametrize(
    "wrong",
    [
        {"regularisation": 0.0},
        {"regularisation": math.nan},
        {"noise_gain": math.inf},
        {"edge_share": 1.0},
        {"edge_share": math.nan},
        {"merit": -1.0},
        {"merit": math.nan},
        {"smv_radius": -1.0},
        {"smv_radius": math.nan},
        {"csf_weight": math.inf},
        {"max_iterations": 0},
        {"tolerance": math.nan},
        {"padding": 0.5},
    ],
)
def test_refuses_parameters_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MEDI(**wrong)
