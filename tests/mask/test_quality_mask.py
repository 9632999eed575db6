"""Masks from the quality of the phase, alone and with the brain; two masks for two passes."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from mask_shapes import ball, dice, evidence, head, noisy

from qsmnet.errors import UsageError
from qsmnet.mask.consensus import ConsensusMask
from qsmnet.mask.mask import MaskPair, PairedMask, find_mask
from qsmnet.mask.otsu import OtsuMask
from qsmnet.mask.quality import QualityMask
from qsmnet.mask.two_pass import TwoPassMask, combine_two_pass
from qsmnet.mask.whole import WholeMask
from qsmnet.volumes import Susceptibility

GOOD = torch.where(ball(14) & ~ball(2.5, x=3), 0.9, 0.1) + 0.02 * torch.randn(
    ball(14).shape, generator=torch.Generator().manual_seed(1)
)


def seen(quality):
    return evidence(noisy(100.0 * ball(14)), quality)


def test_otsu_finds_an_object_that_coils_shade():
    shade = torch.exp(torch.linspace(-1.7, 1.7, 40)).view(-1, 1, 1)
    shaded = evidence(noisy(100.0 * ball(14) * shade, noise=1.0))
    assert dice(OtsuMask(erosion=0.0)(shaded), ball(14)) > 0.95
    assert dice(OtsuMask(erosion=0.0, bias_order=0)(shaded), ball(14)) < 0.9


def test_good_phase_is_kept_and_small_holes_are_filled():
    assert dice(QualityMask()(seen(GOOD)), ball(14)) > 0.98
    holed = QualityMask(largest_hole=0.0, dilation=0, erosion=0)(seen(GOOD))
    assert not bool(holed[ball(2, x=3)].any())


def test_a_given_threshold_is_used():
    steps = torch.where(ball(8), 0.9, torch.where(ball(14), 0.6, 0.1))
    plain = {"dilation": 0, "erosion": 0}
    assert dice(QualityMask(threshold=0.5, **plain)(seen(steps)), ball(14)) == 1
    assert dice(QualityMask(threshold=0.7, **plain)(seen(steps)), ball(8)) == 1


@pytest.mark.parametrize("method", [QualityMask(), ConsensusMask(), TwoPassMask(WholeMask())])
def test_without_phase_there_is_no_quality(method):
    with pytest.raises(UsageError, match=r"--mask: .*quality of the phase"):
        method(seen(None))


def test_consensus_is_brain_and_good_phase_eroded_once():
    brain = ConsensusMask(brain=WholeMask(), erosion=0)(seen(GOOD))
    assert dice(brain, ball(14)) == 1
    eroded = ConsensusMask(brain=WholeMask())(seen(GOOD))
    outside = torch.nn.functional.max_pool3d((~ball(14)).float()[None], 3, 1, 1)[0] > 0
    assert bool((eroded & ~ball(14)).sum() == 0)
    assert int(eroded.sum()) < int(ball(14).sum())
    assert bool(eroded[~outside].all())


def test_consensus_keeps_bleeds_and_drops_the_scalp():
    truth = head()
    found = ConsensusMask(brain=truth.known)(truth.evidence)
    assert bool(found[truth.bleed].all())
    assert not bool((found & ~truth.brain).any())


def test_two_passes_have_two_masks():
    truth = head()
    method = TwoPassMask(object=truth.known)
    pair = find_mask(method, truth.evidence)
    assert isinstance(method, PairedMask)
    assert isinstance(pair, MaskPair)
    assert not bool(pair.reliable[truth.bleed].any())
    assert bool(pair.filled[truth.bleed].all())
    assert torch.equal(method(truth.evidence), pair.filled)
    assert isinstance(find_mask(WholeMask(), truth.evidence), torch.Tensor)


def test_bays_at_the_rim_are_filled_by_closing():
    bay = ball(3.5, x=13)
    quality = torch.where(ball(14) & ~bay, 0.9, 0.1)
    deep = bay & ball(11)
    pair = TwoPassMask(object=WholeMask()).pair(seen(quality))
    assert bool(pair.filled[deep].float().mean() > 0.5)
    assert not bool(pair.reliable[deep].any())


def test_maps_are_joined_without_a_step():
    whole, reliable = ball(14), ball(14) & ~ball(5)
    chi = torch.randn(whole.shape, generator=torch.Generator().manual_seed(2))
    first = Susceptibility(chi * whole, whole, flags=("first",), uncertainty=torch.ones(chi.shape))
    second = Susceptibility((chi - 0.3) * reliable, reliable, uncertainty=0 * chi)
    joined = combine_two_pass(first, second)
    assert torch.allclose(joined.chi, chi * whole, atol=1e-5)
    assert torch.equal(joined.mask, whole)
    assert joined.flags == ("first",)
    assert joined.uncertainty is not None
    assert bool((joined.uncertainty == (~reliable).float()).all())


def test_the_reliable_map_replaces_the_other():
    whole, reliable = ball(14), ball(14) & ~ball(5)
    first = Susceptibility(1.0 * whole * ball(5) + 0.0, whole)
    streaks = torch.linspace(-0.1, 0.1, 40).view(-1, 1, 1) * reliable
    joined = combine_two_pass(first, Susceptibility(streaks, reliable))
    assert bool((joined.chi[ball(5)] == 1).all())
    assert torch.allclose(
        joined.chi[reliable] - joined.chi[reliable].mean(),
        streaks[reliable] - streaks[reliable].mean(),
        atol=1e-6,
    )
    apart = Susceptibility(streaks * 0, ball(3, x=16) & ~whole)
    assert combine_two_pass(first, apart) is first


def test_a_pair_is_a_part_and_a_whole():
    with pytest.raises(ValueError, match="part of the filled"):
        MaskPair(ball(5), ball(8))
    with pytest.raises(ValueError, match="part of the filled"):
        MaskPair(ball(5), ball(0))


def test_evidence_lies_on_one_grid():
    parts = seen(GOOD)
    for other in ("quality", "first_echo"):
        with pytest.raises((ValueError, TypeCheckError)):
            replace(parts, **{other: GOOD[1:].clone()})


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (QualityMask, {"threshold": 1.0}),
        (QualityMask, {"erosion": -1}),
        (QualityMask, {"largest_hole": float("nan")}),
        (ConsensusMask, {"threshold": float("nan")}),
        (ConsensusMask, {"erosion": -1}),
        (TwoPassMask, {"closing": -1.0}),
        (OtsuMask, {"bias_order": -1}),
        (OtsuMask, {"opening": float("nan")}),
    ],
)
def test_parameters_have_bounds(method, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        method(**wrong)
