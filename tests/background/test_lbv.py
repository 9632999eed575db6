"""LBV against a direct solution of Laplace's equation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from qsmnet.background.crop import Crop
from qsmnet.background.depth import depth_in_mask
from qsmnet.background.lbv import Lbv
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.volumes import TotalField

GEOMETRY = Geometry((1.0, 1.3, 0.8), (0.0, 0.0, 1.0))


@pytest.fixture
def small():
    axes = [torch.linspace(-1, 1, n) for n in (15, 14, 13)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    field = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    return TotalField(field, x**2 + 0.5 * y**2 + z**2 + 0.4 * x * z < 0.8, GEOMETRY)


def directly(field, inside):
    """Harmonic where ``inside``, ``field`` elsewhere; the sparse system, one row a voxel."""
    number = -np.ones(inside.shape, int)
    number[inside] = np.arange(inside.sum())
    entries, right = [], np.zeros(inside.sum())
    for voxel in np.argwhere(inside):
        row = number[tuple(voxel)]
        for axis, edge in enumerate(GEOMETRY.voxel_size):
            for step in (-1, 1):
                there = voxel.copy()
                there[axis] += step
                entries.append((row, row, 1 / edge**2))
                if inside[tuple(there)]:
                    entries.append((row, number[tuple(there)], -1 / edge**2))
                else:
                    right[row] += field[tuple(there)] / edge**2
    rows, columns, values = zip(*entries, strict=True)
    background = field.copy()
    background[inside] = spsolve(coo_matrix((values, (rows, columns))).tocsr(), right)
    return background


@pytest.mark.parametrize("peel", [0.0, 1.4])
def test_the_background_is_harmonic_with_the_field_at_its_boundary(small, peel):
    local = Lbv(peel, tolerance=1e-6, max_iterations=300)(small)
    inside = local.mask.numpy()
    expected = small.field.numpy() - directly(small.field.double().numpy(), inside)
    assert np.allclose(local.field.numpy()[inside], expected[inside], atol=1e-4)


def test_it_loses_the_peel_and_one_layer(small):
    kept = depth_in_mask(small.mask, GEOMETRY) > 1.4
    inside = Lbv(1.4)(small).mask
    for axis in range(3):
        for step in (-1, 1):
            inside_neighbour = inside.roll(step, axis)
            assert bool((kept | ~inside_neighbour).all())
    assert not torch.equal(inside, kept)
    with pytest.raises(InconsistentError, match="nothing is left"):
        Lbv(20.0)(small)


def test_iterations_grow_with_the_root_of_the_edge(monkeypatch):
    counts = []
    plain = Crop.filter

    def counted(self, volume, spectrum):
        counts[-1] += 1
        return plain(self, volume, spectrum)

    monkeypatch.setattr(Crop, "filter", counted)
    for size in (20, 60):
        counts.append(0)
        axis = torch.linspace(-1, 1, size)
        x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        edge = 60.0 / size
        total = TotalField(
            torch.exp(x + y * z), x**2 + y**2 + z**2 < 0.9, Geometry((edge,) * 3, (0.0, 0.0, 1.0))
        )
        Lbv(0.0, tolerance=1e-4)(total)
    assert counts[1] < 1.9 * counts[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peel", -1.0),
        ("peel", math.nan),
        ("tolerance", 1.0),
        ("tolerance", math.nan),
        ("max_iterations", 0),
    ],
)
def test_parameters_have_bounds(name, value):
    with pytest.raises(ValueError, match=name):
        replace(Lbv(), **{name: value})
