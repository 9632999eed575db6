"""Masks."""

import math

import pytest
import torch
from mask_shapes import ball, dice, evidence, noisy

from qsmnet.errors import InconsistentError, NumericalError
from qsmnet.mask.finite import finite_in_mask
from qsmnet.mask.magnitude import MagnitudeMask
from qsmnet.mask.whole import WholeMask


def test_an_object_is_found() -> None:
    truth = ball(14)
    assert dice(MagnitudeMask(erosion=0.0)(evidence(noisy(100.0 * truth))), truth) > 0.95


def test_erosion_is_in_mm() -> None:
    truth = ball(14)
    found = MagnitudeMask(erosion=3.0)(evidence(noisy(100.0 * truth)))
    assert dice(found, ball(11)) > 0.93
    assert not bool((found & ~truth).any())


def test_only_the_largest_part_stays_and_holes_are_filled() -> None:
    body, speck = ball(12, x=-5), ball(3, x=15)
    hole = ball(4, x=-5)
    found = MagnitudeMask(erosion=0.0)(evidence(noisy(100.0 * ((body & ~hole) | speck))))
    assert dice(found, body) > 0.9
    assert bool(found[hole].all())
    assert not bool(found[speck].any())


def test_nan_counts_as_background() -> None:
    magnitude = noisy(100.0 * ball(14))
    magnitude[0, 0, 0] = math.nan
    assert not bool(MagnitudeMask()(evidence(magnitude))[0, 0, 0])


def test_nothing_to_find_is_refused() -> None:
    with pytest.raises(InconsistentError, match="--mask"):
        MagnitudeMask(opening=30.0)(evidence(noisy(100.0 * ball(5))))


@pytest.mark.parametrize("wrong", [{"strength": 0.0}, {"opening": -1.0}])
def test_parameters_have_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|not negative"):
        MagnitudeMask(**wrong)


def test_whole_is_whole() -> None:
    assert bool(WholeMask()(evidence(torch.zeros(8, 8, 8))).all())


def test_nan_inside_is_refused_and_outside_becomes_zero() -> None:
    values, mask = torch.ones(2, 8, 8, 8), torch.ones(8, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = False
    values[:, 0, 0, 0] = math.nan
    assert float(finite_in_mask(values, mask, "phase.nii")[0, 0, 0, 0]) == 0
    values[1, 2, 3, 4] = math.inf
    with pytest.raises(NumericalError, match=r"phase\.nii: 1 voxels"):
        finite_in_mask(values, mask, "phase.nii")
