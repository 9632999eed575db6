"""What is said about masks that look wrong."""

import pytest
import torch
from mask_shapes import ball, noisy

from qsmnet.mask.given import mask_flags

MAGNITUDE = noisy(100.0 * ball(14))


def test_a_good_mask_is_not_remarked_on():
    assert mask_flags(ball(12), MAGNITUDE) == ()
    assert mask_flags(ball(12)) == ()


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones_like(ball(1)), "100 % of the grid"),
        (ball(2.5), "0.12 % of the grid"),
        (ball(8, x=-8) | ball(4, x=14), "2 parts"),
        (~ball(16), "flipped, shifted or inverted"),
    ],
)
def test_what_looks_wrong_is_said(mask, said):
    (flag,) = mask_flags(mask, MAGNITUDE)
    assert said in flag


def test_specks_are_not_parts():
    speck = torch.zeros_like(ball(1))
    speck[0, 0, 0] = True
    assert mask_flags(ball(12) | speck, MAGNITUDE) == ()
