"""What the methods are made of: depth, crop, shim, and symmetric operators."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from qsmnet.background.crop import Crop
from qsmnet.background.depth import depth_in_mask
from qsmnet.background.lbv import _minus_laplacian
from qsmnet.background.shim import Shim
from qsmnet.background.spheres import sphere_spectrum
from qsmnet.dipole import dipole_spectrum
from qsmnet.geometry import Geometry

GEOMETRY = Geometry((0.8, 1.1, 1.7), (0.15, -0.2, 0.95))
SHAPE = (31, 40, 25)


def random(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05])
def test_depth_is_the_euclidean_distance(share):
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) >= share
    padded = np.pad(mask.numpy(), 1)
    expected = distance_transform_edt(padded, sampling=GEOMETRY.voxel_size)[1:-1, 1:-1, 1:-1]
    depth = depth_in_mask(mask, GEOMETRY).numpy()
    assert np.allclose(depth, expected, atol=1e-5)
    for limit in (0.0, 1.0, 4.0):
        near = depth_in_mask(mask, GEOMETRY, limit).numpy()
        assert np.allclose(near[expected <= limit], expected[expected <= limit], atol=1e-5)
        assert (near[expected > limit] > limit).all()


def test_a_crop_holds_the_mask_and_its_margin():
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[3:9, 20:40, 5:6] = True
    crop = Crop.of(mask, 4.0, GEOMETRY)
    assert crop.box == (slice(3, 9), slice(20, 40), slice(5, 6))
    for size, part, edge in zip(crop.shape, crop.box, GEOMETRY.voxel_size, strict=True):
        assert (size - (part.stop - part.start)) * edge > 4.0
    volume = random(2)
    assert torch.equal(crop.put(crop.take(volume), volume), volume * mask)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_shim_fits_harmonic_polynomials_and_leaves_nothing_of_them(order):
    axes = [(torch.arange(n) - 9.0) * d for n, d in zip(SHAPE, GEOMETRY.voxel_size, strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    weight = random(3).square()
    shim = Shim(weight, GEOMETRY.voxel_size, order)
    parts = [torch.full(SHAPE, 3.0), x - 2 * y + 0.5 * z, 0.1 * x * z + 0.2 * (x**2 - y**2)]
    parts[2] += 0.1 * (2 * z**2 - x**2 - y**2) + 0.1 * y * z - 0.1 * x * y
    known = torch.stack(parts[: order + 1]).sum(0)
    assert torch.allclose(shim.fit(known), known, atol=1e-4 * float(known.abs().max()))
    left = shim.weighted_rest(random(4))
    for part in parts[: order + 1]:
        assert abs(float((part * left).sum() / part.norm() / left.norm())) < 1e-5
    if order < 2:
        assert float((shim.fit(parts[order + 1]) - parts[order + 1]).norm()) > 1.0


def operators():
    crop = Crop((slice(0, 20), slice(0, 30), slice(0, 12)), SHAPE)
    shim = Shim(random(5).square(), GEOMETRY.voxel_size, 2)
    dipole = dipole_spectrum(SHAPE, GEOMETRY)
    sphere = sphere_spectrum(SHAPE, 5.0, GEOMETRY)
    return {
        "dipole": lambda volume: crop.filter(volume, dipole),
        "sphere": lambda volume: crop.filter(volume, sphere),
        "shim": shim.weighted_rest,
        "laplacian": lambda volume: _minus_laplacian(volume, GEOMETRY.voxel_size),
    }


@pytest.mark.parametrize("name", ["dipole", "sphere", "shim", "laplacian"])
def test_operators_are_their_own_adjoints_in_float32(name):
    operator, one, two = operators()[name], random(6), random(7)
    here, there = (operator(one) * two).sum(), (one * operator(two)).sum()
    scale = float(operator(one).norm() * two.norm())
    assert abs(float(here - there)) < 1e-6 * scale
    assert operator(one).dtype == torch.float32
