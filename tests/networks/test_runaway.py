"""What is done with a correction that cannot be right."""

from dataclasses import replace

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.inversion.learned import LearnedInverter
from qsmnet.networks.runaway import LIMITS, runs_away, tamed
from qsmnet.networks.unrolled import Unrolled
from qsmnet.volumes import LocalField

SHAPE = (2, 1, 24, 20, 16)


@pytest.fixture
def estimate():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def everywhere():
    return torch.ones(SHAPE)


def answering(threshold, wrong=500.0):
    """A U-Net that answers what it is shown by a tenth of it, or with nonsense where it is much."""

    def correct(channels):
        much = channels.abs().flatten(1).amax(1).reshape(-1, 1, 1, 1, 1) > threshold
        correction = 0.1 * channels[:, :1]
        correction[..., -1, -1, -1] += wrong * much[..., 0, 0, 0]
        return channels[:, :1] + correction

    return correct


def test_a_correction_of_its_size_is_none_that_runs_away(estimate, everywhere):
    assert not runs_away(estimate, 2.0 * estimate, everywhere).any()
    assert not runs_away(estimate, estimate + 2.0, everywhere).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_one_voxel_of_one_item_is_found(estimate, everywhere, sign):
    corrected = estimate.clone()
    corrected[1, 0, 23, 19, 0] += sign * 40.0
    assert runs_away(estimate, corrected, everywhere).flatten().tolist() == [False, True]
    everywhere[1, 0, 23, 19, 0] = 0.0
    assert not runs_away(estimate, corrected, everywhere).any()


def test_next_to_a_strong_source_much_may_change(estimate, everywhere):
    estimate[0, 0, 12, 10, 8] = 100.0
    corrected = estimate.clone()
    corrected[0, 0, 14, 10, 8] += 40.0
    assert not runs_away(estimate, corrected, everywhere).any()


@torch.no_grad()
def test_what_does_not_run_away_is_as_it_comes(estimate, everywhere):
    correct = answering(1e9)
    found, remark = tamed(correct, estimate, everywhere)
    assert torch.equal(found, correct(estimate))
    assert remark == ""


@torch.no_grad()
@pytest.mark.parametrize("limit", LIMITS)
def test_an_item_that_runs_away_is_shown_less(estimate, everywhere, limit):
    """And the other is left alone."""
    estimate[1, 0, 0, 0, 0] = 300.0
    rms = float(estimate[1].square().mean().sqrt())
    found, remark = tamed(answering(1.01 * limit * rms), estimate, everywhere)
    assert torch.allclose(found[0], 1.1 * estimate[0])
    shown = estimate[1].clamp(-limit * rms, limit * rms)
    assert torch.allclose(found[1], estimate[1] + 0.1 * shown)
    assert f"up to {limit:g} times its rms" in remark


@torch.no_grad()
def test_if_all_that_is_shown_runs_away_the_estimate_stays(estimate, everywhere):
    found, remark = tamed(answering(0.0), estimate, everywhere)
    assert torch.equal(found, estimate)
    assert "left out" in remark


def test_training_sees_what_it_does(estimate, everywhere):
    found, remark = tamed(answering(0.0), estimate, everywhere)
    assert found.abs().max() > 400
    assert remark == ""


@pytest.fixture
def wild(case, monkeypatch):
    """A field, and a network whose U-Net answers anything with a thousand."""
    network = Unrolled(iterations=1, base=2, levels=1, convolutions=1, start_iterations=4)
    network.eval().priors[0].head.bias.data.fill_(1e3)
    monkeypatch.setattr("qsmnet.inversion.learned.load_network", lambda *_: (network, {}))
    field, _, noise, mask, (geometry,) = case.item(1)
    return network, LocalField(field[0, 0], mask[0, 0] > 0, geometry, noise=noise[0, 0])


def test_the_map_has_a_flag_and_is_that_of_the_start(wild):
    network, local = wild
    chi = LearnedInverter("any")(local)
    assert [flag for flag in chi.flags if "left out" in flag]
    network.priors[0].head.bias.data.zero_()
    tame = LearnedInverter("any")(local)
    assert torch.equal(tame.chi, chi.chi)
    assert not tame.flags


def test_flags_are_those_of_the_last_map(wild):
    network, local = wild
    LearnedInverter("any")(local)
    network.priors[0].head.bias.data.zero_()
    assert not LearnedInverter("any")(replace(local, field=2.0 * local.field)).flags


def test_each_item_of_a_batch_can_have_one(wild):
    _, local = wild
    pair = LocalField(
        torch.stack((0.0 * local.field, local.field)),
        torch.stack((local.mask, local.mask)),
        Geometry(local.geometry.voxel_size, local.geometry.b0_dir),
        noise=torch.stack((local.noise, local.noise)),
    )
    assert len([flag for flag in LearnedInverter("any")(pair).flags if "left out" in flag]) == 1
