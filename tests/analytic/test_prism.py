"""The voxel-integrated kernel against independent evaluations."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from qsmnet.dipole import Dipole, dipole_spectrum, prism_components
from qsmnet.geometry import Geometry, Triple

OBLIQUE = (0.17, -0.26, 0.95)


def image_kernel(shape: tuple[int, int, int], geometry: Geometry) -> Tensor:
    """Sum over all nine pairs of axes of b_i b_j h_ij, one at a time."""
    names = {(0, 0): 0, (1, 1): 1, (2, 2): 2, (0, 1): 3, (0, 2): 4, (1, 2): 5}
    components = prism_components(shape, geometry.voxel_size)
    total = torch.zeros(shape, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            pair = (min(i, j), max(i, j))
            total += geometry.b0_dir[i] * geometry.b0_dir[j] * components[names[pair]]
    return total


@pytest.mark.parametrize(
    ("voxel_size", "self_term"),
    [((1.0, 1.0, 1.0), 0.0), ((0.7, 0.7, 1.4), 0.1754), ((0.5, 0.5, 2.0), 0.2530)],
)
def test_self_term(voxel_size: Triple, self_term: float) -> None:
    """What the point dipole lacks inside a voxel that is not a cube."""
    kernel = image_kernel((8, 8, 8), Geometry(voxel_size, OBLIQUE))
    assert float(kernel[0, 0, 0]) == pytest.approx(self_term, abs=6e-5)


@pytest.mark.parametrize("shape", [(8, 6, 10), (9, 7, 5), (8, 7, 6)])
def test_weighted_sum_of_spectra(shape: tuple[int, int, int]) -> None:
    geometry = Geometry((0.7, 1.1, 1.4), OBLIQUE)
    direct = torch.fft.rfftn(image_kernel(shape, geometry)).real
    summed = dipole_spectrum(shape, geometry, "prism", torch.float64)
    torch.testing.assert_close(summed, direct, rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset", [(1, 0, 0), (0, 2, -1), (2, -1, 1), (-3, 2, 3)])
def test_integral_of_point_dipoles(offset: tuple[int, int, int]) -> None:
    """Outside of a voxel its field is that of the dipoles in it: Gauss-Legendre over its volume."""
    geometry = Geometry((0.7, 1.1, 1.4), OBLIQUE)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    sources = [torch.from_numpy(nodes) / 2 * d for d in geometry.voxel_size]
    weight = torch.from_numpy(weights) / 2
    cell = torch.einsum("i,j,k->ijk", weight, weight, weight)
    at = torch.meshgrid(*sources, indexing="ij")
    delta = [n * d - p for n, d, p in zip(offset, geometry.voxel_size, at, strict=True)]
    distance = sum(d**2 for d in delta).sqrt()
    along = sum(d * b for d, b in zip(delta, geometry.b0_dir, strict=True)) / distance
    volume = math.prod(geometry.voxel_size)
    integral = (cell * (3 * along**2 - 1) / (4 * math.pi * distance**3)).sum() * volume
    kernel = image_kernel((8, 8, 8), geometry)
    assert float(kernel[offset]) == pytest.approx(float(integral), abs=2e-6)


def test_padded_convolution_is_linear() -> None:
    """With padding 2 the FFT is the plain sum over source voxels, nothing wraps around."""
    shape = (4, 5, 6)
    geometry = Geometry((0.7, 1.1, 1.4), OBLIQUE)
    generator = torch.Generator().manual_seed(3)
    chi = torch.randn(shape, generator=generator, dtype=torch.float64)
    kernel = image_kernel(tuple(2 * n for n in shape), geometry)
    expected = torch.zeros(shape, dtype=torch.float64)
    for source in np.ndindex(*shape):
        shifted = kernel.roll(source, (0, 1, 2))
        expected += chi[source] * shifted[: shape[0], : shape[1], : shape[2]]
    field = Dipole(shape, geometry, "prism", padding=2.0, dtype=torch.float64).forward(chi)
    torch.testing.assert_close(field, expected, rtol=0, atol=1e-12)


def test_coarse_voxels_are_sums_of_fine_ones(sphere: Callable) -> None:
    """The mean field over a coarse voxel is the same from both grids, to discretisation."""
    coarse, fine = Geometry((2.0, 2.0, 2.0), OBLIQUE), Geometry((1.0, 1.0, 1.0), OBLIQUE)
    chi = sphere((32, 32, 32), (1.0, 1.0, 1.0), 8.0)
    field = Dipole(chi.shape, fine, "prism", padding=2.0, dtype=torch.float64).forward(chi)
    pooled, means = (v.reshape(16, 2, 16, 2, 16, 2).mean((1, 3, 5)) for v in (field, chi))
    other = Dipole(means.shape, coarse, "prism", padding=2.0, dtype=torch.float64).forward(means)
    assert (pooled - other).square().mean().sqrt() < 0.01 * field.abs().max()
