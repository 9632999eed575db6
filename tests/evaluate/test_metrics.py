"""Scores against the published scorer, and against what can be said without it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qsm_ci.qsm_eval import score_arrays

from qsmnet.evaluate.metrics import SCORES, score

RNG = np.random.default_rng


def head(shape=(30, 26, 28), seed=0, calcification=True):
    """A structured head: tissue classes, nuclei, a vessel, a calcification."""
    rng = RNG(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    mask = radius < 0.85
    seg = np.where(radius < 0.6, 8, 9) * mask
    for label in range(1, 8):
        centre = rng.integers(9, 17, 3)
        seg[tuple(slice(c, c + 3) for c in centre)] = label
    seg[12:14, 4:20, 12] = 11
    if calcification:
        seg[18:21, 16:19, 17:20] = 16
    levels = rng.normal(0, 0.05, 17)
    levels[16] = -1.5
    return levels[seg] * mask, mask, seg.astype(np.int32)


def noisy(truth, seed=1, sd=0.02):
    return 0.85 * truth + RNG(seed).normal(0, sd, truth.shape)


def assert_equal_to_oracle(chi, truth, mask, seg=None):
    ours = score(chi, truth, mask, seg)
    with np.errstate(all="ignore"):
        theirs, _ = score_arrays(chi, truth, mask, seg=seg)
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-9, rel=1e-9, nan_ok=True), key


@pytest.mark.parametrize("calcification", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_structured_head_equals_the_oracle(seed, calcification):
    truth, mask, seg = head(seed=seed, calcification=calcification)
    assert_equal_to_oracle(noisy(truth, seed), truth, mask, seg)
    assert_equal_to_oracle(noisy(truth, seed), truth, mask)


def test_calcification_scores_are_there_to_be_compared():
    truth, mask, seg = head()
    scores = score(noisy(truth), truth, mask, seg)
    assert all(math.isfinite(scores[key]) for key in SCORES)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(6, 33)] * 3),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-3, 0.05, 3.0]),
    share=st.sampled_from([0.02, 0.5, 1.0]),
    offset=st.sampled_from([0.0, 0.3]),
)
def test_random_volumes_equal_the_oracle(shape, seed, scale, share, offset):
    rng = RNG(seed)
    truth = rng.normal(0, scale, shape)
    mask = rng.random(shape) < share
    mask[shape[0] // 2, 0:2, -1] = True
    seg = rng.integers(0, 17, shape)
    assert_equal_to_oracle(rng.normal(offset, scale, shape), truth, mask, seg)


def test_eroded_and_broken_maps_equal_the_oracle():
    truth, mask, seg = head()
    chi = noisy(truth)
    eroded = chi * (np.roll(mask, 3, 0) & np.roll(mask, -3, 1))
    assert_equal_to_oracle(eroded, truth, mask, seg)
    broken = chi.copy()
    broken[10:12, 10:14, 10:14] = np.nan
    broken[14, 14, 14] = np.inf
    assert_equal_to_oracle(broken, truth, mask, seg)
    assert score(broken, truth, mask)["coverage"] < 1


def test_calcification_at_the_border_and_missed():
    truth, mask, seg = head()
    seg[seg == 16] = 8
    seg[0:2, 0:2, 24:] = 16
    truth[seg == 16] = -2.0
    mask[seg == 16] = True
    assert_equal_to_oracle(noisy(truth), truth, mask, seg)
    assert_equal_to_oracle(np.abs(noisy(truth)), truth, mask, seg)
    deep = noisy(truth)
    deep[mask & (seg == 8)] = -5.0
    assert_equal_to_oracle(deep, truth, mask, seg)


def test_calcification_alone_in_a_tiny_grid():
    truth = RNG(3).normal(0, 0.1, (6, 6, 6))
    seg = np.full((6, 6, 6), 16)
    assert_equal_to_oracle(truth - 0.2, truth, np.ones((6, 6, 6), dtype=bool), seg)


def test_anything_outside_the_mask_is_ignored():
    truth, mask, seg = head()
    chi = noisy(truth)
    dirty, dirtier = chi.copy(), truth.copy()
    dirty[~mask], dirtier[~mask] = np.nan, 9.0
    # the calcification and the nuclei lie inside
    assert score(dirty, dirtier, mask, seg) == score(chi * mask, truth, mask, seg)


def test_perfect_and_empty_maps():
    truth, mask, seg = head()
    perfect = score(truth, truth, mask, seg)
    assert perfect["nrmse"] == 0
    assert perfect["xsim"] == pytest.approx(1, abs=1e-12)
    assert perfect["correlation"] == pytest.approx(1, abs=1e-12)
    empty = score(np.zeros_like(truth), truth, mask, seg)
    assert empty["nrmse"] == pytest.approx(100)
    assert empty["coverage"] == 0
    assert empty["correlation"] == 0


def test_constant_map_has_no_correlation():
    truth, mask, _ = head()
    assert score(np.full_like(truth, 0.1), truth, mask)["correlation"] == 0


def test_constant_truth_has_no_relative_error():
    mask = np.ones((8, 8, 8), dtype=bool)
    scores = score(RNG(0).normal(size=(8, 8, 8)), np.zeros((8, 8, 8)), mask)
    assert math.isnan(scores["nrmse"])
    assert math.isnan(scores["hfen"])


@pytest.mark.parametrize("wrong", ["shape", "mask", "truth"])
def test_wrong_input_is_refused(wrong):
    truth, mask, seg = head()
    chi = noisy(truth)
    if wrong == "shape":
        chi = chi[1:]
    if wrong == "mask":
        mask = np.zeros_like(mask)
    if wrong == "truth":
        truth = np.full_like(truth, np.nan)
    # shapes are caught by the annotation already where those are checked
    with pytest.raises((ValueError, TypeError), match=r"disagree|Type-check|empty|finite"):
        score(chi, truth, mask, seg)
