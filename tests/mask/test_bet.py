"""Brain extraction."""

from dataclasses import replace

import pytest
import torch
from mask_shapes import dice, head

from qsmnet.mask.bet import Bet


def test_the_brain_is_found_without_skull_and_scalp():
    truth = head()
    found = Bet()(truth.evidence)
    assert dice(found, truth.brain) > 0.95
    assert not bool((found & (truth.evidence.magnitude > 150)).any())


def test_coils_do_not_matter():
    # the magnitude changes ninefold over the grid
    sloped = head(slope=1.1)
    assert dice(Bet()(sloped.evidence), sloped.brain) > 0.95
    assert dice(Bet(bias_order=0)(sloped.evidence), sloped.brain) < 0.93


def test_a_smaller_fraction_keeps_more():
    more, less = (int(Bet(fraction=f)(head().evidence).sum()) for f in (0.3, 0.7))
    assert more > less > 0


def test_the_gradient_shifts_what_is_kept_downward():
    def height(gradient):
        return float(Bet(gradient=gradient)(head().evidence).nonzero()[:, 2].double().mean())

    assert height(0.2) < height(-0.2)


def test_the_first_echo_counts():
    truth = head()
    other = replace(truth.evidence, magnitude=torch.rand(truth.brain.shape))
    assert dice(Bet()(other), truth.brain) > 0.95


def test_axes_do_not_matter():
    axes = (2, 0, 1)
    truth = head()
    edges = truth.evidence.geometry.voxel_size
    geometry = replace(truth.evidence.geometry, voxel_size=tuple(edges[a] for a in axes))
    turned = replace(
        truth.evidence,
        geometry=geometry,
        magnitude=truth.evidence.magnitude.permute(axes).contiguous(),
        first_echo=None,
        quality=None,
    )
    assert dice(Bet()(turned), truth.brain.permute(axes)) > 0.95


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction": 0.0},
        {"fraction": float("nan")},
        {"gradient": 2.0},
        {"bias_order": 4},
        {"concave_smoothing": 0.5},
        {"smoothing": -1.0},
        {"closing": float("nan")},
    ],
)
def test_parameters_have_bounds(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Bet(**wrong)
