"""Power-law fields: spectrum, levels, strength."""

import numpy as np
import pytest
import torch

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.random_fields import RandomFields, power_law_field

GRID = Grid((40, 44, 36), (1.0, 0.9, 1.2))


@pytest.mark.parametrize("exponent", [1.5, 3.0])
def test_amplitude_follows_the_power_law(exponent):
    field = power_law_field(2, exponent, GRID)
    axes = [np.fft.fftfreq(n, d) for n, d in zip(GRID.shape, GRID.voxel_size, strict=True)]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))).ravel()
    power = np.abs(np.fft.fftn(field.double().numpy())).ravel() ** 2
    inside = (radius > 0.05) & (radius < 0.4)
    slope = np.polyfit(np.log(radius[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-2 * exponent, abs=0.1)
    assert float(field.std()) == pytest.approx(1, rel=1e-3)


def record(**changes):
    drawn = RandomFields().draw(np.random.default_rng(0), GRID)
    return drawn | changes


def test_levels_cut_the_field_into_equal_shares():
    chi = RandomFields().render(record(levels=[0.5, -1.0, 2.0, 0.1]), GRID).chi
    values, counts = chi.unique(return_counts=True)
    assert len(values) == 4
    assert (counts / chi.numel()).tolist() == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize("levels", [None, [0.0, 1.0, -1.0]])
def test_strength_is_the_standard_deviation(levels):
    chi = RandomFields().render(record(levels=levels, strength=0.2), GRID).chi
    assert float(chi.std()) == pytest.approx(0.2, rel=1e-3)
    assert float(chi.mean()) == pytest.approx(0, abs=1e-4)


def test_half_of_the_phantoms_have_levels():
    drawn = [RandomFields().draw(np.random.default_rng(s), GRID)["levels"] for s in range(80)]
    cut = [levels for levels in drawn if levels is not None]
    assert 25 <= len(cut) <= 55
    assert {len(levels) for levels in cut} <= set(range(3, 9))
    assert not torch.tensor(cut[0]).eq(0).all()
