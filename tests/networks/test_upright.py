"""The upright frame: one cone for every scan, and maps that come back."""

import math

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.networks.upright import Upright

TILTED = Geometry((1.0, 1.0, 1.0), (0.0, math.sin(0.6), math.cos(0.6)))
THICK = Geometry((0.7, 0.7, 1.4), (0.3, -0.2, -0.9))
SHAPES = {TILTED: (48, 48, 48), THICK: (64, 64, 32)}


def distances(geometry, shape, centre=(0.0, 0.0, 0.0)):
    """Position of every voxel about the grid's middle and a centre, in mm."""
    axes = [
        (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * edge - c
        for n, edge, c in zip(shape, geometry.voxel_size, centre, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def ball(geometry, radius, centre=(0.0, 0.0, 0.0)):
    return distances(geometry, SHAPES[geometry], centre).norm(dim=0) < radius


def sphere_field(points, b0_dir, radius):
    """Field of a sphere of 1 ppm outside of it (Schenck 1996)."""
    r = points.norm(dim=0).clamp_min(1e-6)
    cosine = torch.einsum("i,ixyz->xyz", torch.tensor(b0_dir, dtype=torch.float64), points) / r
    return torch.where(r > radius, (radius / r) ** 3 * (cosine**2 - 1 / 3), 0.0)


@pytest.mark.parametrize("geometry", [TILTED, THICK])
def test_field_of_a_sphere_is_that_of_an_upright_one(geometry):
    points = distances(geometry, SHAPES[geometry])
    field = sphere_field(points, geometry.b0_dir, 6.0).float()
    mask = ball(geometry, 18.0)
    frame = Upright.about(mask, geometry)
    turned = frame.turned(field[None])[0]
    edge = math.prod(geometry.voxel_size) ** (1 / 3)
    cubes = Geometry((edge, edge, edge), (0.0, 0.0, 1.0))
    expected = sphere_field(distances(cubes, turned.shape), (0.0, 0.0, 1.0), 6.0).float()
    r = distances(cubes, turned.shape).norm(dim=0)
    shell = (r > 8.0) & (r < 17.0)
    assert float((turned - expected)[shell].norm() / expected[shell].norm()) < 0.03


@pytest.mark.parametrize("geometry", [TILTED, THICK])
def test_smooth_map_comes_back(geometry):
    points = distances(geometry, SHAPES[geometry], (2.0, -1.0, 1.0))
    smooth = torch.exp(-((points.norm(dim=0) / 6.0) ** 2)).float()
    mask = ball(geometry, 18.0)
    frame = Upright.about(mask, geometry)
    back = frame.turned_back(frame.turned(smooth[None]))[0]
    assert back.shape == smooth.shape
    assert float((back - smooth)[mask].norm() / smooth[mask].norm()) < 0.02


@pytest.mark.parametrize("geometry", [TILTED, THICK])
def test_frame_holds_all_of_the_mask(geometry):
    mask = ball(geometry, 9.0, (5.0, 4.0, -3.0))
    frame = Upright.about(mask, geometry)
    edge = math.prod(geometry.voxel_size) ** (1 / 3)
    volume = float(frame.turned(mask[None].float()).sum()) * edge**3
    assert volume == pytest.approx(int(mask.sum()) * math.prod(geometry.voxel_size), rel=0.02)
    # and little else
    assert all(n * edge < 9.0 * 2 + 8 for n in frame.shape)


@pytest.mark.parametrize("b0_dir", [(0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (0.02, 0.0, 1.0)])
def test_upright_scan_is_left_as_it_is(b0_dir):
    mask = torch.ones(8, 8, 8, dtype=torch.bool)
    assert Upright.about(mask, Geometry((1.0, 1.0, 1.03), b0_dir)) is None


def test_empty_mask_has_no_frame():
    assert Upright.about(torch.zeros(8, 8, 8, dtype=torch.bool), TILTED) is None


def test_sign_of_b0_does_not_matter():
    mask = ball(TILTED, 9.0)
    opposite = Geometry(TILTED.voxel_size, tuple(-b for b in TILTED.b0_dir))
    first, second = Upright.about(mask, TILTED), Upright.about(mask, opposite)
    assert first.shape == second.shape
    assert torch.allclose(first.inward, second.inward)


@torch.no_grad()
def test_half_precision_moves_no_place():
    mask = torch.ones(80, 70, 40, dtype=torch.bool)
    frame = Upright.about(mask, THICK)
    volume = torch.randn(1, *mask.shape, generator=torch.Generator().manual_seed(0))
    plain = frame.turned(volume)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frame.turned(volume), plain)
        assert frame.turned_back(plain.bfloat16()).dtype == torch.float32
