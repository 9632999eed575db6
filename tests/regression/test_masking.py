"""Masks of whole heads: no method gets worse than its bar."""

import pytest
from scores import bars

from qsmnet.cli.compose import available, compose
from qsmnet.pipeline import scan_evidence

_BARS = bars("masking")
METHODS = sorted(set(available("mask")) - {"whole"})
_TOLERANCE = 0.01


def mask_scores(found, truth):
    """Dice, and the share of the true brain that is kept."""
    both = float((found & truth).sum())
    return {
        "dice": 2 * both / float(found.sum() + truth.sum()),
        "kept": both / float(truth.sum()),
    }


def test_every_method_has_its_bar():
    assert set(_BARS["small"]) == set(_BARS["full"]) == set(METHODS)


def assert_as_good(name, head, bar):
    found = mask_scores(compose("mask", name)(scan_evidence(head.as_scan())), head.mask)
    for score, value in bar.items():
        assert found[score] > value - _TOLERANCE, f"{score} is below its bar {value}: {found}"


@pytest.mark.parametrize("name", METHODS)
def test_small_head(name, small_head):
    assert_as_good(name, small_head, _BARS["small"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_full_head(name, full_head):
    assert_as_good(name, full_head, _BARS["full"][name])
