"""SHARP, RESHARP and iSMV against plain solutions of their equations."""

import math
from dataclasses import replace

import pytest
import torch

from qsmnet.background.ismv import Ismv
from qsmnet.background.resharp import Resharp
from qsmnet.background.sharp import Sharp
from qsmnet.background.spheres import sphere_kernel, sphere_spectrum
from qsmnet.background.vsharp import VSharp
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.volumes import TotalField

GEOMETRY = Geometry((1.0, 1.2, 0.9), (0.0, 0.0, 1.0))
SHAPE = (12, 13, 14)


@pytest.fixture
def small():
    """An ellipsoid of a few hundred voxels, away from the grid's border, and noise for a field."""
    axes = [(torch.arange(n) - n // 2) / (0.42 * n) for n in SHAPE]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    field = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    return TotalField(field, x**2 + y**2 + z**2 < 1, GEOMETRY)


def means(radius):
    """Mean over spheres as a dense matrix, on the periodic grid."""
    kernel = sphere_kernel(SHAPE, radius, GEOMETRY).double()
    columns = [
        kernel.roll((x, y, z), (0, 1, 2)).ravel()
        for x in range(SHAPE[0])
        for y in range(SHAPE[1])
        for z in range(SHAPE[2])
    ]
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("shape", [(30, 33, 21), (24, 24, 60)])
@pytest.mark.parametrize("radius", [1.3, 2.0, 5.4, 8.0])
def test_spectra_are_those_of_the_kernels(shape, radius):
    expected = torch.fft.rfftn(sphere_kernel(shape, radius, GEOMETRY))
    spectrum = sphere_spectrum(shape, radius, GEOMETRY)
    assert torch.allclose(spectrum, expected.real, atol=1e-6)
    assert float(expected.imag.abs().max()) < 1e-6
    assert float(spectrum[0, 0, 0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("strength", [1e-3, 0.1])
def test_resharp_is_the_minimum_of_its_sum(small, strength):
    method = Resharp(2.0, strength, tolerance=1e-6, max_iterations=500)
    local = method(small)
    inside = local.mask.ravel().double()
    high = torch.eye(inside.numel(), dtype=torch.float64) - means(2.0)
    normal = high.T @ (inside[:, None] * high)
    field = (small.field * small.mask).ravel().double()
    wanted = normal @ field
    normal.diagonal().add_(strength)
    expected = torch.linalg.solve(normal, wanted).reshape(SHAPE) * local.mask
    assert torch.allclose(local.field.double(), expected, atol=2e-3 * float(expected.abs().max()))


def test_ismv_is_where_its_iteration_ends(small):
    local = Ismv(2.0, tolerance=1e-6, max_iterations=500)(small)
    mean = means(2.0)
    inside, field = local.mask.ravel().double(), (small.field * small.mask).ravel().double()
    background = field.clone()
    for _ in range(300):
        background = inside * (mean @ background) + (1 - inside) * field
    expected = (field - background).reshape(SHAPE)
    assert torch.allclose(local.field.double(), expected, atol=1e-4)


def test_sharp_is_vsharp_of_one_radius(small):
    one, other = Sharp(2.0, 0.1)(small), VSharp((2.0,), 0.1)(small)
    assert torch.equal(one.field, other.field)
    assert torch.equal(one.mask, other.mask)


def test_larger_lambda_takes_more(scene):
    case = scene()
    sizes = [
        float(Resharp(6.0, strength, 1e-4)(case.total(case.local)).field.norm())
        for strength in (1e-5, 1e-3, 1.0)
    ]
    assert sizes[0] > sizes[1] > 1.5 * sizes[2]


@pytest.mark.parametrize("method", [Sharp(), Resharp(), Ismv()])
def test_spheres_must_fit_and_hold_more_than_one_voxel(method, small):
    with pytest.raises(InconsistentError, match="no sphere"):
        replace(method, radius=30.0)(small)
    with pytest.raises(InconsistentError, match="no sphere"):
        replace(method, radius=1.1)(small)


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        (Sharp(), "radius", 0.0),
        (Sharp(), "radius", math.nan),
        (Sharp(), "threshold", math.nan),
        (Resharp(), "radius", math.inf),
        (Resharp(), "regularisation", 0.0),
        (Resharp(), "regularisation", math.nan),
        (Resharp(), "tolerance", math.nan),
        (Resharp(), "max_iterations", 0),
        (Ismv(), "radius", math.nan),
        (Ismv(), "tolerance", 1.0),
        (Ismv(), "max_iterations", 0),
        (VSharp(), "radii", (math.inf, 1.0)),
        (VSharp(), "radii", (2.0, math.nan)),
        (VSharp(), "threshold", math.nan),
    ],
)
def test_parameters_have_bounds(method, name, value):
    with pytest.raises(ValueError, match=name):
        replace(method, **{name: value})
