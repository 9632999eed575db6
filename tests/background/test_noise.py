"""Noise of a field from the field itself."""

import pytest
import torch

from qsmnet.background.noise import estimate_noise


@pytest.mark.parametrize("sd", [1e-4, 0.003, 0.02])
def test_white_noise_on_a_smooth_field_is_found(sd: float) -> None:
    axis = torch.linspace(-1, 1, 32)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    field = (
        0.2 * x * y
        + 0.1 * z**2
        + torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(1)) * sd
    )
    mask = x**2 + y**2 + z**2 < 0.9
    field[~mask] = float("nan")
    assert estimate_noise(field, mask) == pytest.approx(sd, rel=0.06)


def test_edges_are_outvoted() -> None:
    noise = 0.002 * torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(2))
    noise[10:14, 9:20, 12:15] += 0.1
    assert estimate_noise(noise, torch.ones(32, 32, 32, dtype=torch.bool)) == pytest.approx(
        0.002, rel=0.1
    )


def test_no_noise_is_zero_and_a_thin_mask_tells_nothing() -> None:
    whole = torch.ones(16, 16, 16, dtype=torch.bool)
    assert estimate_noise(torch.ones(16, 16, 16), whole) == pytest.approx(0, abs=1e-6)
    thin = torch.zeros_like(whole)
    thin[8] = True
    assert estimate_noise(torch.randn(16, 16, 16), thin) == 0.0
