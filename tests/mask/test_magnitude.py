"""Masks."""

import math

import pytest
import torch

from qsmnet.errors import InconsistentError, NumericalError
from qsmnet.geometry import Geometry
from qsmnet.mask.finite import finite_in_mask
from qsmnet.mask.magnitude import MagnitudeMask
from qsmnet.mask.whole import WholeMask

GEOMETRY = Geometry((1.0, 1.0, 2.0), (0.0, 0.0, 1.0))


def _ball(radius: float, x: float = 0, size: int = 40) -> torch.Tensor:
    axes = (
        torch.arange(size) - size / 2,
        torch.arange(size) - size / 2,
        2.0 * torch.arange(size // 2) - size / 2,
    )
    grid = torch.meshgrid(*axes, indexing="ij")
    return ((grid[0] - x) ** 2 + grid[1] ** 2 + grid[2] ** 2).sqrt() < radius


def _magnitude(inside: torch.Tensor, noise: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, *inside.shape, generator=generator) * noise
    return ((100.0 * inside + parts[0]) ** 2 + parts[1] ** 2).sqrt()


def _dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_an_object_is_found() -> None:
    truth = _ball(14)
    assert _dice(MagnitudeMask(erosion=0.0)(_magnitude(truth), GEOMETRY), truth) > 0.95


def test_erosion_is_in_mm() -> None:
    truth = _ball(14)
    found = MagnitudeMask(erosion=3.0)(_magnitude(truth), GEOMETRY)
    assert _dice(found, _ball(11)) > 0.93
    assert not bool((found & ~truth).any())


def test_only_the_largest_part_stays_and_holes_are_filled() -> None:
    body, speck = _ball(12, x=-5), _ball(3, x=15)
    hole = _ball(4, x=-5)
    found = MagnitudeMask(erosion=0.0)(_magnitude((body & ~hole) | speck), GEOMETRY)
    assert _dice(found, body) > 0.9
    assert bool(found[hole].all())
    assert not bool(found[speck].any())


def test_nan_counts_as_background() -> None:
    magnitude = _magnitude(_ball(14))
    magnitude[0, 0, 0] = math.nan
    assert not bool(MagnitudeMask()(magnitude, GEOMETRY)[0, 0, 0])


def test_nothing_to_find_is_refused() -> None:
    with pytest.raises(InconsistentError, match="--mask"):
        MagnitudeMask(opening=30.0)(_magnitude(_ball(5)), GEOMETRY)


@pytest.mark.parametrize("wrong", [{"strength": 0.0}, {"opening": -1.0}])
def test_parameters_have_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|not negative"):
        MagnitudeMask(**wrong)


def test_whole_is_whole() -> None:
    assert bool(WholeMask()(torch.zeros(8, 8, 8), GEOMETRY).all())


def test_nan_inside_is_refused_and_outside_becomes_zero() -> None:
    values, mask = torch.ones(2, 8, 8, 8), torch.ones(8, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = False
    values[:, 0, 0, 0] = math.nan
    assert float(finite_in_mask(values, mask, "phase.nii")[0, 0, 0, 0]) == 0
    values[1, 2, 3, 4] = math.inf
    with pytest.raises(NumericalError, match=r"phase\.nii: 1 voxels"):
        finite_in_mask(values, mask, "phase.nii")
