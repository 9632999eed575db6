"""What every background removal must do, each with its configured parameters."""

from dataclasses import replace

import pytest
import torch

from qsmnet.background.removal import BackgroundRemoval
from qsmnet.cli.compose import available, compose
from qsmnet.geometry import Geometry
from qsmnet.volumes import TotalField

METHODS = available("background")
VOXELS = [(1.0, 1.0, 1.0), (0.9, 1.2, 1.6)]
#: Share of a background that may be left, and of a local field that may be lost: root mean squares
#: 8 mm and more inside the mask. What LBV leaves is the error of its stencil, six neighbours at
#: unequal distances.
LEFT = dict.fromkeys(METHODS, 1e-3) | {"lbv": 2e-3}
LOST = dict.fromkeys(METHODS, 0.12)


def converged(name):
    """Return the method as configured, but with iterations, where it has any, to their end."""
    method = compose("background", name)
    if hasattr(method, "tolerance"):
        return replace(method, tolerance=1e-5, max_iterations=500)
    return method


def rms(volume, where):
    return float((volume[where] - volume[where].mean()).double().square().mean().sqrt())


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def test_it_is_one(name):
    assert isinstance(compose("background", name), BackgroundRemoval)


@pytest.mark.parametrize("voxel_size", VOXELS)
def test_a_background_goes(name, voxel_size, scene):
    case = scene(voxel_size)
    local = converged(name)(case.total(case.background))
    deep = local.mask & (case.depth() > 8.0)
    assert rms(local.field, deep) < LEFT[name] * rms(case.background, case.mask)


@pytest.mark.parametrize("voxel_size", VOXELS)
def test_a_local_field_stays(name, voxel_size, scene):
    case = scene(voxel_size)
    local = compose("background", name)(case.total(case.local))
    deep = local.mask & (case.depth() > 8.0)
    assert rms(local.field - case.local, deep) < LOST[name] * rms(case.local, deep)


def test_it_is_linear(name, scene):
    case, method = scene(), converged(name)
    both = method(case.total(2 * case.local + case.background)).field
    apart = 2 * method(case.total(case.local)).field + method(case.total(case.background)).field
    assert rms(both - apart, case.mask) < 1e-3 * rms(both, case.mask)
    method = compose("background", name)
    both = method(case.total(2 * case.local + case.background)).field
    # by a power of two: rounding must not cost or save an iteration
    scaled = method(case.total(2**-10 * (2 * case.local + case.background))).field
    assert torch.allclose(2**10 * scaled, both, atol=1e-4 * float(both.abs().max()))


def test_a_constant_does_not_matter(name, scene):
    case, method = scene(), compose("background", name)
    here, there = method(case.total()).field, method(case.total(case.local + case.background + 1))
    assert rms(here - there.field, there.mask) < 2e-3 * rms(case.background, case.mask)


def test_it_says_where_the_field_is_known(name, scene):
    case = scene()
    local = compose("background", name)(case.total())
    assert bool((case.mask | ~local.mask).all())
    assert torch.equal(local.support > 0, local.mask)
    assert float(local.field[~local.mask].abs().max()) == 0
    assert float(local.mask.sum() / case.mask.sum()) > 0.2
    assert local.harmonic_removed


def test_all_else_is_handed_on(name, scene):
    case = scene()
    noise, magnitude = torch.rand(case.mask.shape) + 0.1, torch.rand(case.mask.shape)
    total = case.total(noise=noise, magnitude=magnitude, radians_per_ppm=12.0)
    local = compose("background", name)(total)
    assert local.noise is noise
    assert local.magnitude is magnitude
    assert local.radians_per_ppm == 12.0
    assert local.geometry == case.geometry


def test_what_is_outside_the_mask_does_not_matter(name, scene):
    case, method = scene(), compose("background", name)
    elsewhere = torch.where(case.mask, case.local + case.background, torch.nan)
    assert torch.equal(method(case.total(elsewhere)).field, method(case.total()).field)


def test_the_noise_stays_what_it_was(name, scene):
    case = scene()
    noise = torch.randn(case.mask.shape, generator=torch.Generator().manual_seed(3))
    local = compose("background", name)(case.total(noise))
    deep = local.mask & (case.depth() > 4.0)
    assert float(local.field[deep].std()) == pytest.approx(1.0, abs=0.15)


def test_turning_the_axes_turns_the_field(name, scene):
    case, method = scene(VOXELS[1]), compose("background", name)
    x, y, z = case.geometry.b0_dir
    a, b, c = case.geometry.voxel_size
    turned = TotalField(
        (case.local + case.background).float().permute(2, 0, 1).contiguous(),
        case.mask.permute(2, 0, 1).contiguous(),
        Geometry((c, a, b), (z, x, y)),
    )
    here, there = method(case.total()), method(turned)
    assert torch.equal(here.mask, there.mask.permute(1, 2, 0))
    assert rms(here.field - there.field.permute(1, 2, 0), here.mask) < 1e-2 * rms(
        case.local, case.mask
    )


@pytest.mark.gpu
def test_a_gpu_gives_the_same(name, scene):
    case, method = scene(VOXELS[1]), compose("background", name)
    here = method(case.total())
    there = method(
        TotalField(case.total().field.cuda(), case.mask.cuda(), case.geometry, noise=None)
    )
    assert there.field.is_cuda
    assert torch.equal(there.mask.cpu(), here.mask)
    assert rms(there.field.cpu() - here.field, here.mask) < 1e-3 * rms(here.field, here.mask)
