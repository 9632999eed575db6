"""Zeros of a map, and what is said of a region in whole-brain units."""

import pytest
import torch

from qsmnet.errors import InconsistentError
from qsmnet.inversion.reference import referenced, region_level
from qsmnet.volumes import Susceptibility


def _map(batch: int = 2) -> tuple[Susceptibility, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand((batch, 6, 7, 8), generator=generator) < 0.8
    region = torch.zeros_like(mask)
    region[:, 2:4, 2:5, 3:6] = True
    chi = torch.randn(mask.shape, generator=generator) + 0.4
    return Susceptibility(chi * mask, mask, flags=("a warning",)), region


@pytest.mark.parametrize(("reference", "mark"), [("csf", "csf_mean"), ("region", "region_mean")])
def test_region_becomes_zero_volume_by_volume(reference: str, mark: str) -> None:
    chi, region = _map()
    result = referenced(chi, reference, region)
    assert result.reference == mark
    assert result.flags == chi.flags
    assert not result.chi[~chi.mask].any()
    for before, after, inside, where in zip(chi.chi, result.chi, chi.mask, region, strict=True):
        assert float(after[where & inside].mean()) == pytest.approx(0, abs=1e-6)
        moved = (before - after)[inside]
        assert float(moved.max() - moved.min()) < 1e-6


def test_mean_and_none() -> None:
    chi, region = _map()
    assert referenced(chi, "none", region) is chi
    assert torch.equal(referenced(chi, "mean").chi, chi.referenced_to_mean().chi)


def test_level_does_not_hang_on_the_maps_own_zero() -> None:
    chi, region = _map(batch=1)
    values = chi.chi[region & chi.mask]
    levels = [
        region_level(referenced(chi, reference, region), region, "csf")
        for reference in ("none", "mean", "csf")
    ]
    for level in levels:
        assert level.voxels == values.numel()
        assert level.mean == pytest.approx(
            float(values.mean() - chi.chi[chi.mask].mean()), abs=1e-6
        )
        assert level.sd == pytest.approx(float(values.std(correction=0)), abs=1e-6)


def test_refuses_a_region_that_is_not_in_the_mask() -> None:
    chi, region = _map()
    outside = region & ~chi.mask
    with pytest.raises(InconsistentError, match="no voxel"):
        region_level(chi, outside, "csf")
    for wrong in (None, outside):
        with pytest.raises(InconsistentError, match="no such region"):
            referenced(chi, "region", wrong)
