"""Thresholds and the smooth part of a magnitude."""

import numpy as np
import pytest
from mask_shapes import ball, noisy

from qsmnet.mask.bias import fit_bias
from qsmnet.mask.thresholds import otsu_threshold, robust_threshold


def test_otsu_splits_two_classes():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(1, 0.2, 3000), rng.normal(5, 0.3, 1000)])
    assert 2 < otsu_threshold(values) < 4


def test_otsu_agrees_with_all_splits():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.gamma(2, 1, 500), rng.normal(6, 2, 300)])
    splits = np.histogram_bin_edges(values, 256)[1:-1]
    within = [
        (values <= t).mean() * values[values <= t].var()
        + (values > t).mean() * values[values > t].var()
        for t in splits
    ]
    found = otsu_threshold(values)
    best = (values <= found).mean() * values[values <= found].var()
    best += (values > found).mean() * values[values > found].var()
    assert best <= min(within) * 1.001


def test_otsu_of_a_constant_is_that():
    assert otsu_threshold(np.full(10, 3.0)) == pytest.approx(3, abs=0.5)


def test_thresholds_follow_the_scale():
    values = noisy(100.0 * ball(14)).numpy().astype(np.float64)
    for threshold in (otsu_threshold, robust_threshold):
        assert threshold(1000 * values) == pytest.approx(1000 * threshold(values), rel=1e-3)
        assert 4 < threshold(values) < 96


def polynomial():
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 40, 20)), indexing="ij")
    return np.exp(0.4 * x - 0.3 * y**2 + 0.2 * x * z)


def test_a_polynomial_is_found_despite_outliers():
    inside = ball(17).numpy()
    tissue = np.where(ball(3, x=8).numpy(), 0.2, 1.0)
    ratio = (fit_bias(polynomial() * tissue, inside, 2) / polynomial())[inside]
    assert ratio.std() / ratio.mean() < 1e-3


def test_a_fit_stays_bounded_beyond_its_voxels():
    bias = fit_bias(polynomial() ** 3, ball(6).numpy(), 2)
    assert 0.2 < bias.min() < bias.max() < 5
    assert fit_bias(polynomial(), ball(6).numpy(), 0) == pytest.approx(1)
