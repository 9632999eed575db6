"""Spheres and shells of partial volume against their closed forms.

Tolerances are fractions of the largest field outside, 2/3 chi, as measured for a radius of 12
voxels; they are tighter than any published dipole code's, where there are any.
"""

import math
from collections.abc import Callable

import pytest
import torch

from qsmnet.dipole import Dipole, Kernel
from qsmnet.geometry import Geometry

OBLIQUE = (0.17, -0.26, 0.95)
PEAK = 2 / 3
# voxel size, B0, kernel, and limits: rms outside, max outside, rms inside
CASES = [
    ((1.0, 1.0, 1.0), (0.0, 0.0, 1.0), "sampled", 1e-3, 4e-2, 7e-3),
    ((1.0, 1.0, 1.0), OBLIQUE, "sampled", 1e-3, 4e-2, 7e-3),
    ((1.0, 1.0, 1.0), OBLIQUE, "prism", 3e-4, 1e-2, 1.2e-3),
    ((0.7, 0.7, 1.4), OBLIQUE, "sampled", 1.5e-3, 5e-2, 1.1e-2),
    ((0.7, 0.7, 1.4), OBLIQUE, "prism", 8e-4, 3e-2, 3e-3),
    ((0.8, 1.25, 1.0), OBLIQUE, "sampled", 1.5e-3, 5e-2, 1.1e-2),
    ((0.8, 1.25, 1.0), OBLIQUE, "prism", 8e-4, 3e-2, 3e-3),
]


def outside_field(radius: torch.Tensor, cosine: torch.Tensor, size: float) -> torch.Tensor:
    return (size / radius) ** 3 * (3 * cosine**2 - 1) / 3


@pytest.mark.parametrize(("voxel_size", "b0_dir", "kernel", "rms", "worst", "inside"), CASES)
def test_sphere(
    voxel_size: tuple[float, float, float],
    b0_dir: tuple[float, float, float],
    kernel: Kernel,
    rms: float,
    worst: float,
    inside: float,
    sphere: Callable,
    frame: Callable,
) -> None:
    size = 12.0 * math.prod(voxel_size) ** (1 / 3)
    shape = tuple(
        round(64 / 12 * size / d) + odd for odd, d in zip((0, 1, 0), voxel_size, strict=True)
    )
    geometry = Geometry(voxel_size, b0_dir)
    chi = sphere(shape, voxel_size, size)
    field = Dipole(shape, geometry, kernel, padding=2.0, dtype=torch.float64).forward(chi)
    radius, cosine = frame(shape, voxel_size, geometry.b0_dir)
    diagonal = math.hypot(*voxel_size)
    beyond, within = radius > size + diagonal, radius < size - diagonal
    error = (field - outside_field(radius, cosine, size))[beyond] / PEAK
    assert error.square().mean().sqrt() < rms
    assert error.abs().max() < worst
    assert (field[within] / PEAK).square().mean().sqrt() < inside


@pytest.mark.parametrize("kernel", ["sampled", "prism"])
def test_sphere_off_centre(kernel: Kernel, sphere: Callable, frame: Callable) -> None:
    """A centred sphere is its own mirror image and so blind to a kernel that is not even."""
    shape, voxel_size, centre, size = (42, 36, 31), (1.0, 1.1, 1.3), (5.3, -3.7, 4.1), 11.0
    geometry = Geometry(voxel_size, OBLIQUE)
    chi = sphere(shape, voxel_size, size, centre)
    field = Dipole(shape, geometry, kernel, padding=2.0, dtype=torch.float64).forward(chi)
    radius, cosine = frame(shape, voxel_size, geometry.b0_dir, centre)
    beyond = radius > size + math.hypot(*voxel_size)
    error = (field - outside_field(radius, cosine, size))[beyond] / PEAK
    assert error.square().mean().sqrt() < {"sampled": 2.5e-3, "prism": 8e-4}[kernel]


def test_shell(sphere: Callable, frame: Callable) -> None:
    """Nothing inside the cavity, the moment of the material outside, one term of each between."""
    shape, voxel_size, inner, outer = (44, 44, 44), (1.0, 1.0, 1.0), 7.0, 14.0
    geometry = Geometry(voxel_size, OBLIQUE)
    chi = sphere(shape, voxel_size, outer) - sphere(shape, voxel_size, inner)
    field = Dipole(shape, geometry, "prism", padding=2.0, dtype=torch.float64).forward(chi)
    radius, cosine = frame(shape, voxel_size, geometry.b0_dir)
    material = outside_field(radius, cosine, inner)
    expected = {
        "cavity": (radius < inner - 1.8, torch.zeros_like(radius)),
        "wall": ((radius > inner + 1.8) & (radius < outer - 1.8), -material),
        "outside": (radius > outer + 1.8, outside_field(radius, cosine, outer) - material),
    }
    for name, (where, truth) in expected.items():
        error = (field - truth)[where] / PEAK
        assert error.square().mean().sqrt() < 3e-3, name
        assert error.abs().max() < 3e-2, name


def test_refinement_converges(sphere: Callable, frame: Callable) -> None:
    """Half the voxel, at most half the error."""
    errors = []
    for edge in (1.6, 0.8):
        shape = (round(38.4 / edge),) * 3
        geometry = Geometry((edge,) * 3, OBLIQUE)
        chi = sphere(shape, geometry.voxel_size, 12.0)
        field = Dipole(shape, geometry, "prism", padding=2.0, dtype=torch.float64).forward(chi)
        radius, cosine = frame(shape, geometry.voxel_size, geometry.b0_dir)
        far = radius > 14.0
        errors.append((field - outside_field(radius, cosine, 12.0))[far].square().mean().sqrt())
    assert errors[1] < errors[0] / 2
