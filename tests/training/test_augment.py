"""Turned items: the physics of the turned geometry makes the turned field."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.simulate.phantom import Phantom
from qsmnet.training.augment import mirrored_and_scaled, turned, turned_by
from qsmnet.training.batch import Item

GEOMETRY = Geometry((0.8, 1.1, 1.7), (0.5, -0.3, 0.8))
SHAPE = (14, 16, 12)


def item(shape=SHAPE, kernel="prism"):
    generator = torch.Generator().manual_seed(3)
    chi = torch.randn(shape, generator=generator)
    field = Dipole(shape, GEOMETRY, kernel, 2.0).forward(chi)
    mask = torch.rand(shape, generator=generator) < 0.6
    noise = torch.rand(shape, generator=generator)
    return Item(field, mask.float(), noise, chi, mask, GEOMETRY, 5)


@pytest.mark.parametrize("kernel", ["prism", "sampled"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_field_of_the_turned_is_the_turned_field(order, kernel):
    original = item(kernel=kernel)
    for mirrored in ((), (0,), (1, 2), (0, 1, 2)):
        found = turned_by(original, order, mirrored)
        shape = tuple(found.chi.shape)
        expected = Dipole(shape, found.geometry, kernel, 2.0).forward(found.chi)
        assert float((found.field - expected).abs().max()) < 1e-5
        assert found.geometry.voxel_size == tuple(GEOMETRY.voxel_size[a] for a in order)


def test_volumes_stay_together():
    original = item()
    found = turned_by(original, (2, 0, 1), (1,))
    assert torch.equal(found.chi, original.chi.permute(2, 0, 1).flip(1))
    assert torch.equal(found.mask, original.mask.permute(2, 0, 1).flip(1))
    assert torch.equal(found.noise, original.noise.permute(2, 0, 1).flip(1))
    assert found.index == 5


def test_axes_of_other_lengths_are_not_exchanged():
    drawn = [turned(item(), np.random.default_rng(i)) for i in range(12)]
    assert {tuple(each.chi.shape) for each in drawn} == {SHAPE}
    assert {each.geometry.voxel_size for each in drawn} == {GEOMETRY.voxel_size}
    assert len({each.geometry.b0_dir for each in drawn}) > 3


def test_cubes_are_turned_every_way_with_b0_nearest_to_the_third_axis():
    """As at inference, where the axes are exchanged for it."""
    cube = item((10, 10, 10))
    dx, dy, dz = GEOMETRY.voxel_size
    drawn = [turned(cube, np.random.default_rng(i)) for i in range(60)]
    assert {each.geometry.voxel_size for each in drawn} == {(dx, dy, dz), (dy, dx, dz)}
    along_x = replace(cube, geometry=Geometry(GEOMETRY.voxel_size, (-0.9, 0.3, 0.2)))
    turns = [turned(along_x, np.random.default_rng(i)) for i in range(60)]
    assert {each.geometry.voxel_size for each in turns} == {(dy, dz, dx), (dz, dy, dx)}
    assert {math.copysign(1, each.geometry.b0_dir[2]) for each in turns} == {-1, 1}
    again = turned(cube, np.random.default_rng(7))
    assert torch.equal(again.chi, drawn[7].chi)


def test_scale_is_log_uniform():
    ones = torch.ones(4, 4, 4)
    phantom = Phantom(ones, ones > 0, ones.to(torch.uint8))
    factors = [
        float(mirrored_and_scaled(phantom, np.random.default_rng(i), (0.3679, 2.7183)).chi[0, 0, 0])
        for i in range(300)
    ]
    logarithms = np.log(factors)
    assert -1 <= logarithms.min() < -0.9
    assert 0.9 < logarithms.max() <= 1.0001
    assert abs(logarithms.mean()) < 0.15
