"""Error over the dipole kernel's magnitude."""

import numpy as np
import pytest
import torch

from qsmnet.dipole import sampled_kernel
from qsmnet.evaluate.spectrum import error_spectrum
from qsmnet.geometry import Geometry

SHAPES = [(16, 18, 20), (15, 15, 15)]  # fast FFT sizes: no padding, so that numpy can repeat it


@pytest.fixture(params=SHAPES, ids=str)
def case(request):
    generator = torch.Generator().manual_seed(0)
    truth, error = torch.randn((2, *request.param), generator=generator)
    mask = torch.rand(request.param, generator=generator) < 0.7
    return truth, truth + 0.3 * error, mask, Geometry((1.0, 1.1, 1.5), (0.2, 0.1, 1.0))


def test_equals_the_definition_on_the_full_spectrum(case):
    truth, chi, mask, geometry = case
    spectrum = error_spectrum(chi, truth, mask, geometry, bins=7)
    d = sampled_kernel(tuple(truth.shape), geometry).abs().numpy()
    centred = [torch.where(mask, v - v[mask].mean(), 0.0).double().numpy() for v in (chi, truth)]
    x, t = (np.fft.fftn(v) for v in centred)
    edges = np.array(spectrum.edges)
    index = np.clip(np.digitize(d, edges) - 1, 0, 6)
    for i, found in enumerate(spectrum.error):
        inside = index == i
        error = np.sqrt((abs(x - t)[inside] ** 2).sum() / (abs(t)[inside] ** 2).sum())
        # voxels on a bin's border may fall to either side in float32
        assert found == pytest.approx(error, rel=0.02)


def test_perfect_map_and_empty_map(case):
    truth, _, mask, geometry = case
    assert max(error_spectrum(truth + 0.5, truth, mask, geometry).error) < 1e-5
    assert error_spectrum(0 * truth, truth, mask, geometry).error == pytest.approx([1.0] * 20)


def test_an_error_in_the_cone_shows_in_the_cone():
    shape = (24, 24, 24)
    geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    truth = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    cone = sampled_kernel(shape, geometry).abs() < 0.1
    lost = torch.fft.ifftn(torch.fft.fftn(truth) * ~cone).real
    error = error_spectrum(lost, truth, torch.ones(shape, dtype=torch.bool), geometry, 20).error
    assert error[:2] == pytest.approx([1.0, 1.0], abs=1e-4)
    assert max(error[3:]) < 1e-4


def test_values_that_are_not_finite_count_as_zero(case):
    truth, chi, mask, geometry = case
    broken, zeroed = chi.clone(), chi.clone()
    broken[8, 8, 8], zeroed[8, 8, 8] = torch.nan, 0.0
    mask[8, 8, 8] = True
    expected = error_spectrum(zeroed, truth, mask, geometry).error
    assert error_spectrum(broken, truth, mask, geometry).error == expected


def test_no_bins_is_refused(case):
    with pytest.raises(ValueError, match="at least one bin"):
        error_spectrum(*case, bins=0)
