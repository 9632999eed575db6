"""V-SHARP: fields of outside sources go, fields of inside sources stay, on any voxel shape."""

import pytest
import torch

from qsmnet.background.depth import depth_in_mask
from qsmnet.background.spheres import sphere_kernel
from qsmnet.background.vsharp import VSharp
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry, Triple
from qsmnet.volumes import LocalField, TotalField

VOXELS: list[Triple] = [(1.0, 1.0, 1.0), (0.8, 0.8, 1.6), (1.2, 0.9, 1.0)]
RADII = (8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0)


def _grid(voxel: Triple) -> tuple[torch.Tensor, ...]:
    axes = [
        (torch.arange(n).double() - n // 2) * d for n, d in zip((48, 47, 46), voxel, strict=True)
    ]
    return torch.meshgrid(*axes, indexing="ij")


def _dipole(grid: tuple[torch.Tensor, ...], at: Triple, radius: float, chi: float) -> torch.Tensor:
    """Field in ppm of a sphere with B0 along z, zero inside."""
    x, y, z = (axis - centre for axis, centre in zip(grid, at, strict=True))
    distance = (x**2 + y**2 + z**2).sqrt().clamp_min(1e-6)
    outside = chi / 3 * radius**3 * (3 * z**2 - distance**2) / distance**5
    return torch.where(distance > radius, outside, 0.0)


def _ball(grid: tuple[torch.Tensor, ...], radius: float) -> torch.Tensor:
    return sum(axis**2 for axis in grid).sqrt() < radius


def _remove(field: torch.Tensor, mask: torch.Tensor, voxel: Triple) -> LocalField:
    geometry = Geometry(voxel, (0.0, 0.0, 1.0))
    return VSharp(RADII, threshold=0.05)(TotalField(field.float(), mask, geometry))


@pytest.mark.parametrize("voxel", VOXELS)
def test_a_background_field_goes(voxel: Triple) -> None:
    grid, mask = _grid(voxel), _ball(_grid(voxel), 17.0)
    field = (
        _dipole(grid, (4, 6, 30), 8, 9) + _dipole(grid, (27, 2, -3), 5, -9) + 0.02 * grid[0] + 1.0
    )
    size = float((field - field[mask].mean())[mask].std())
    local = _remove(field, mask, voxel)
    left = local.field[_ball(grid, 11.0)].double()
    assert float(left.square().mean().sqrt()) < 1e-3 * size
    assert float(left.abs().max()) < 1e-2 * size


@pytest.mark.parametrize("voxel", VOXELS)
def test_a_local_field_stays(voxel: Triple) -> None:
    grid, mask = _grid(voxel), _ball(_grid(voxel), 20.0)
    field = _dipole(grid, (2, 0, -1), 4, 0.3).float()
    local = _remove(field, mask, voxel)
    kept, truth = local.field[local.mask], field[local.mask]
    assert float((kept * truth).sum() / truth.square().sum()) == pytest.approx(1, abs=5e-3)
    assert float((kept - truth).norm() / truth.norm()) < 0.03


def test_it_is_linear() -> None:
    grid, mask = _grid(VOXELS[1]), _ball(_grid(VOXELS[1]), 17.0)
    one, two = _dipole(grid, (2, 0, -1), 4, 0.3), _dipole(grid, (4, 6, 30), 8, 9)
    together = _remove(one + 2 * two, mask, VOXELS[1]).field
    apart = _remove(one, mask, VOXELS[1]).field + 2 * _remove(two, mask, VOXELS[1]).field
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("voxel", VOXELS)
@pytest.mark.parametrize("radius", [2.0, 3.7, 8.0])
def test_harmonic_polynomials_equal_their_mean(voxel: Triple, radius: float) -> None:
    geometry = Geometry(voxel, (0.0, 0.0, 1.0))
    kernel = sphere_kernel((40, 41, 42), radius, geometry)
    axes = [
        torch.fft.fftfreq(n, 1 / (n * d), dtype=torch.float64)
        for n, d in zip((40, 41, 42), voxel, strict=True)
    ]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert float(kernel.min()) >= 0
    for harmonic in (x**2 - y**2, y**2 - z**2, x * y, x * z, x**3 - 3 * x * y**2, z):
        assert float((kernel * harmonic).sum()) == pytest.approx(0, abs=1e-4)


def test_the_mask_shrinks_by_the_smallest_radius_and_says_so() -> None:
    grid, mask = _grid(VOXELS[0]), _ball(_grid(VOXELS[0]), 17.0)
    local = _remove(_dipole(grid, (2, 0, -1), 4, 0.3), mask, VOXELS[0])
    assert bool((mask | ~local.mask).all())
    assert local.field_support is not None
    assert torch.equal(local.support > 0, local.mask)
    assert torch.equal(local.mask, depth_in_mask(mask, local.geometry) > 2.0)
    assert float(local.field[~local.mask].abs().max()) == 0


def test_beyond_the_grid_counts_as_outside() -> None:
    whole = torch.ones(12, 14, 16, dtype=torch.bool)
    depth = depth_in_mask(whole, Geometry((1.0, 2.0, 3.0), (0.0, 0.0, 1.0)))
    assert float(depth[0, 7, 8]) == pytest.approx(1.0)
    assert float(depth[6, 0, 8]) == pytest.approx(2.0)
    assert float(depth[6, 7, 0]) == pytest.approx(3.0)


def test_radii_that_hold_no_sphere_are_left_out() -> None:
    grid, mask = _grid(VOXELS[1]), _ball(_grid(VOXELS[1]), 17.0)
    total = TotalField(grid[0].float(), mask, Geometry(VOXELS[1], (0.0, 0.0, 1.0)))
    assert torch.equal(VSharp((8.0, 2.0, 1.5))(total).mask, VSharp((8.0, 2.0))(total).mask)
    with pytest.raises(InconsistentError, match="no sphere"):
        VSharp((1.5,))(total)
    with pytest.raises(InconsistentError, match="no sphere"):
        VSharp((30.0,))(total)


@pytest.mark.parametrize("radii", [(), (1.0, 2.0), (2.0, 2.0), (3.0, -1.0)])
def test_radii_must_descend(radii: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="radii"):
        VSharp(radii)


def test_threshold_has_bounds() -> None:
    with pytest.raises(ValueError, match="threshold"):
        VSharp(threshold=0.0)
