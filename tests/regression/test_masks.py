"""Masks of whole heads: no method gets worse than its bar."""

import pytest
import torch
from scipy import ndimage
from scores import bars

from qsmnet.cli.compose import available, compose
from qsmnet.mask.mask import Evidence

_BARS = bars("masks")
METHODS = sorted(set(available("mask")) - {"whole"})
_TOLERANCE = 0.01


def evidence(head):
    """Magnitudes, and how far the first echo's phase agrees with its 26 neighbours'."""
    signal = torch.polar(torch.ones_like(head.phase[0]), head.phase[0]).numpy()
    parts = (
        ndimage.uniform_filter(each, 3, mode="constant") for each in (signal.real, signal.imag)
    )
    real, imaginary = (torch.from_numpy(part) for part in parts)
    return Evidence(
        head.magnitude.square().sum(0).sqrt(),
        head.geometry,
        head.magnitude[0],
        torch.hypot(real, imaginary),
    )


def mask_scores(found, truth):
    """Dice, and the share of the true brain that is kept."""
    both = float((found & truth).sum())
    return {
        "dice": 2 * both / float(found.sum() + truth.sum()),
        "kept": both / float(truth.sum()),
    }


def test_every_method_has_its_bar():
    assert set(_BARS["small"]) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_small_head(name, small_head):
    found = mask_scores(compose("mask", name)(evidence(small_head)), small_head.mask)
    for score, value in _BARS["small"][name].items():
        assert found[score] > value - _TOLERANCE, f"{score} is below its bar {value}: {found}"
