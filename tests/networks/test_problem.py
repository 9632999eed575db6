"""The scaled, weighted problem that networks with D inside are given."""

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.networks.classical import classical_map
from qsmnet.networks.problem import Problem, field_scale


def of(inputs, scale="median"):
    return Problem.of(*inputs, "sampled", 1.25, scale)


def test_median_scale_does_not_follow_a_lesion():
    """A tenth of the voxels fifty times as strong: the median hardly moves, the rms is theirs."""
    field = torch.randn(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    inside, lesion = torch.ones_like(field), field.clone()
    lesion[..., :2] *= 50
    medians, rms = (
        [float(field_scale(each, inside, kind)) for each in (field, lesion)]
        for kind in ("median", "rms")
    )
    assert medians[1] == pytest.approx(medians[0], rel=0.2)
    assert rms[1] > 10 * rms[0]
    assert medians[0] == pytest.approx(0.6745, rel=0.05)
    assert rms[0] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("kind", ["median", "rms"])
def test_scale_is_that_of_the_mask_and_never_zero(kind):
    field = torch.zeros(2, 1, 8, 8, 8)
    field[0, 0, 0, 0, 0] = 1.0
    inside = torch.ones_like(field)
    one, none = field_scale(field, inside, kind).flatten().tolist()
    assert one > 1e-5
    assert none == pytest.approx(1e-9)
    inside[0, 0, 0, 0, 0] = 0
    assert field_scale(field, inside, kind).flatten().tolist() == pytest.approx([1e-9, 1e-9])


def test_weight_is_one_up_to_the_median_noise(case):
    field, support, _, mask, geometry = case.item(0)
    noise = torch.full_like(field, 0.002)
    noise[..., :5] = 0.001
    noise[..., -3:] = 0.004
    problem = of((field, support, noise, mask, geometry))
    known = support[..., -3:] > 0
    assert torch.allclose(problem.weight[..., -3:][known], torch.tensor(0.25))
    assert torch.equal(problem.weight[..., :-3], support[..., :-3])
    assert float(problem.level * problem.scale) == pytest.approx(0.002)


def test_certainty_is_the_median_noise_over_the_noise(case):
    field, _, _, mask, geometry = case.item(0)
    support = torch.ones_like(mask)
    support[:, :, :2] = 0
    noise = torch.full_like(field, 0.002)
    noise[..., :2] = 0.001
    noise[..., 2] = 0.0001
    noise[..., -3:] = 0.004
    inputs = (field, support, noise, support, geometry)
    for factor in (1.0, 1e-3):
        scaled = (field, support, factor * noise, support, geometry)
        certainty = of(scaled).certainty[:, :, 2:]
        assert torch.allclose(certainty[..., :2], torch.tensor(2.0))
        assert (certainty[..., 2] == 4).all()
        assert torch.allclose(certainty[..., 3:-3], torch.tensor(1.0))
        assert torch.allclose(certainty[..., -3:], torch.tensor(0.5))
    assert not of(inputs).certainty[:, :, :2].any()


def test_noise_is_shown_as_its_logarithm_and_residuals_in_its_units(case):
    field, support, _, mask, geometry = case.item(0)
    noise = torch.full_like(field, 0.002)
    noise[..., :3] = 0.001
    problem = of((field, support, noise, mask, geometry))
    level, inside = float(problem.level), mask > 0
    expected = torch.log(problem.noise[inside] / 0.2)
    assert torch.allclose(problem.log_noise[inside], expected, atol=1e-5)
    assert not problem.log_noise[~inside].any()
    # half the noise is twice as many standard deviations; five at the most
    ones = level * mask
    assert torch.allclose(problem.over_noise(ones)[..., 3:], mask[..., 3:])
    assert torch.allclose(problem.over_noise(ones)[..., :3], 2 * mask[..., :3])
    assert float(problem.over_noise(100 * ones).max()) == 5
    unknown = of((field, support, 0 * noise, mask, geometry))
    assert torch.allclose(unknown.log_noise[inside], torch.log(torch.tensor(0.01 / 0.2)))


def test_unknown_noise_weighs_by_the_support_alone(case):
    field, support, noise, mask, geometry = case.item(0)
    problem = of((field, 0.5 * support, 0 * noise, mask, geometry))
    assert torch.equal(problem.weight, 0.5 * support)
    assert torch.equal(problem.certainty, (support > 0).float())
    assert float(problem.level) == 0


def test_field_outside_the_mask_counts_where_it_is_known(case):
    field, _, noise, mask, geometry = case.item(1)
    problem = of((field + 0.01, torch.ones_like(mask), 0 * noise, mask, geometry))
    assert (problem.weight == 1).all()
    assert problem.field[mask == 0].any()


def test_residual_has_no_mean_and_is_the_weighted_misfit(case):
    problem = of(case.inputs)
    chi = torch.randn(problem.field.shape, generator=torch.Generator().manual_seed(3))
    residual = problem.residual(chi)
    assert residual.sum((-3, -2, -1)).abs().max() < 1e-3 * residual.abs().sum()
    # a constant in the field does not move it
    misfit = problem.field - problem.dipole.forward(chi)
    for w, r, m in zip(problem.weight, residual, misfit, strict=True):
        inside = w > 0
        constant = (m - r / w.clamp_min(1e-9))[inside]
        assert constant.std() < 1e-4 * m[inside].std()


@pytest.mark.parametrize("start", ["tikhonov", "tkd", "tv"])
def test_classical_map_resembles_the_truth_and_needs_no_gradient(case, start):
    field, support, noise, mask, geometry = case.inputs
    problem = of((field.requires_grad_(), support, noise, mask, geometry))
    chi = classical_map(problem, start, 15)
    field.requires_grad_(False)
    assert not chi.requires_grad
    assert not chi[mask == 0].any()
    for found, truth, inside in zip(chi, case.chi, mask > 0, strict=True):
        together = torch.stack([found[inside], truth[inside]])
        assert float(torch.corrcoef(together)[0, 1]) > 0.6


class TestStartScale:
    """Without noise the strength of total variation goes with the field's median, or its rms."""

    def few_strong_sources(self, factor=1.0):
        """Three small cubes in much nothing: the rms of their field is many times its median."""
        chi = torch.zeros(1, 1, 40, 40, 40)
        chi[..., 10:14, 10:14, 10:14] = 1.0
        chi[..., 25:28, 12:15, 22:25] = -0.7
        chi[..., 20:24, 28:30, 30:34] = 0.5
        mask, geometry = torch.zeros_like(chi), [Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))]
        mask[..., 4:-4, 4:-4, 4:-4] = 1
        field = mask * Dipole(chi.shape[2:], geometry, "sampled", 1.25).forward(chi)
        return of((factor * field, mask, 0 * mask, mask, geometry)), chi

    def test_the_rms_suits_few_strong_sources(self):
        problem, chi = self.few_strong_sources()
        ratio = problem.field.square().mean().sqrt() / problem.field.abs().median()
        assert ratio > 5
        by_median, by_rms = (
            float((problem.scale * classical_map(problem, "tv", 40, scale) - chi).norm())
            for scale in ("median", "rms")
        )
        assert by_rms < 0.85 * by_median

    def test_the_map_goes_with_the_field(self):
        one, three = (self.few_strong_sources(factor)[0] for factor in (1.0, 3.0))
        maps = [each.scale * classical_map(each, "tv", 10, "rms") for each in (one, three)]
        assert torch.allclose(maps[1], 3 * maps[0], atol=1e-5 * float(maps[1].abs().max()))

    def test_voxels_without_weight_do_not_count(self, case):
        """A void's noise is many times the field; it says nothing of the sources."""
        field, support, noise, mask, geometry = case.item(0)
        noise = torch.full_like(field, 0.001)
        void = (slice(None), slice(None), slice(8, 10), slice(8, 10), slice(8, 10))
        noise[void] = 10.0
        maps = []
        for value in (0.0, 5.0):
            seen = field.clone()
            seen[void] = value
            problem = of((seen, support, noise, mask, geometry))
            maps.append(problem.scale * classical_map(problem, "tv", 10, "rms"))
        assert torch.allclose(*maps, atol=1e-3 * float(maps[0].abs().max()))
