"""The last step of a network: against closed forms of total variation denoising, its symmetries."""

import pytest
import torch
from jaxtyping import TypeCheckError

from qsmnet.networks.classical_residual import ClassicalResidual
from qsmnet.networks.shrinkage import total_variation_denoised
from qsmnet.networks.unrolled import Unrolled

SHAPE = (14, 12, 10)
VOXEL = (0.7, 1.0, 1.6)


def noise(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_step_between_two_layers_shrinks_as_in_closed_form(axis):
    """1/2 sum (n1 d1^2 + n2 d2^2) + lambda / v (h - d1 - d2) is least at d = lambda / (v n)."""
    shape, first, step, strength = [6, 6, 6], 4, 1.0, 0.2
    shape[axis] = 10
    volume = torch.zeros(shape)
    volume.narrow(axis, first, 10 - first).fill_(step)
    found = total_variation_denoised(volume, torch.ones(shape), VOXEL, strength, 400)
    low, high = strength / VOXEL[axis] / first, strength / VOXEL[axis] / (10 - first)
    expected = volume * (step - high) + (1 - volume) * low
    assert torch.allclose(found, expected, atol=1e-4)


def test_strong_enough_it_leaves_the_mean_of_each_part_of_the_mask():
    mask = torch.zeros(SHAPE)
    mask[1:6, 2:10, 1:9] = 1.0
    mask[8:13, 2:10, 1:9] = 1.0
    volume = (noise(0) + torch.linspace(0, 3, SHAPE[0])[:, None, None]) * mask
    found = total_variation_denoised(volume, mask, VOXEL, 100.0, 2000)
    for part in (slice(0, 7), slice(7, 14)):
        inside = mask[part] > 0
        assert torch.allclose(found[part][inside], volume[part][inside].mean(), rtol=0.0, atol=2e-3)
    assert not found[mask == 0].any()


def test_what_wraps_around_the_grid_is_no_neighbour():
    """Of a mask that fills the grid the first and the last plane are not side by side."""
    ramp = torch.linspace(0, 1, SHAPE[0])[:, None, None].expand(SHAPE).contiguous()
    found = total_variation_denoised(ramp, torch.ones(SHAPE), VOXEL, 0.01, 400)
    assert torch.allclose(found[3:-3], ramp[3:-3], atol=1e-3)
    assert found[0, 0, 0] > ramp[0, 0, 0] + 0.01
    assert found[-1, 0, 0] < ramp[-1, 0, 0] - 0.01


def test_it_is_the_least_of_its_objective():
    """No small change of the result lowers what it minimises."""
    mask = (noise(1) > -1.5).float()
    volume, strength = noise(2).double() * mask, 0.3

    def objective(x):
        total, length = 0.5 * (x - volume).square().sum(), torch.zeros_like(x)
        for axis in range(3):
            edges = mask * mask.roll(-1, axis)
            edges.select(axis, -1).zero_()
            length += (edges * (x.roll(-1, axis) - x) / VOXEL[axis]).square()
        return float(total + strength * length.sqrt().sum())

    found = total_variation_denoised(volume, mask.double(), VOXEL, strength, 2000)
    least = objective(found)
    assert least < 0.8 * objective(volume)
    for seed in range(20):
        changed = found + 1e-3 * noise(10 + seed).double() * mask
        assert objective(changed) > least - 1e-6


def test_a_few_iterations_do_it():
    mask = torch.ones(SHAPE)
    volume, strength = 0.1 * noise(3), 0.02
    volume[4:9, 3:8, 2:8] += 1.0
    converged = total_variation_denoised(volume, mask, VOXEL, strength, 2000)
    found = total_variation_denoised(volume, mask, VOXEL, strength)
    assert (found - converged).norm() < 0.1 * (volume - converged).norm()


def test_slabs_of_a_volume_make_the_same(monkeypatch):
    volume, mask = noise(4), (noise(5) > -1.0).float()
    volume *= mask
    whole = total_variation_denoised(volume, mask, VOXEL, 0.2)
    monkeypatch.setattr("qsmnet.inversion.slabs.SLAB_BYTES", 3 * volume[0].numel() * 4)
    assert torch.allclose(total_variation_denoised(volume, mask, VOXEL, 0.2), whole, atol=1e-5)


@pytest.fixture(params=[Unrolled, ClassicalResidual])
def pair(request):
    """A network without and one with the step, of the same U-Net, which does something."""
    settings = {"base": 2, "levels": 2, "convolutions": 1, "start_iterations": 4}
    without, with_it = (request.param(**settings, shrinkage=on) for on in (False, True))
    for seed, weight in enumerate(without.parameters()):
        torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    with_it.load_state_dict(without.state_dict())
    return without, with_it


@torch.no_grad()
def test_it_is_the_last_step_of_a_network(pair, case):
    item = case.item(1)
    _, _, _, mask, (geometry,) = item
    without, with_it = (network(*item)[0, 0] for network in pair)
    problem = pair[0].problem(*item)
    strength = float(problem.scale * (0.05 + 0.4 * problem.level))
    expected = total_variation_denoised(without, mask[0, 0], geometry.voxel_size, strength)
    assert not torch.allclose(with_it, without, rtol=1e-3)
    assert torch.allclose(with_it, expected, atol=1e-5 * float(without.abs().max()))


@torch.no_grad()
def test_with_it_a_network_goes_with_the_unit_of_the_field(pair, case):
    field, support, sd, mask, geometry = case.item(1)
    once = pair[1](field, support, sd, mask, geometry)
    thrice = pair[1](3 * field, support, 3 * sd, mask, geometry)
    assert (thrice - 3 * once).norm() < 1e-5 * thrice.norm()


def test_to_a_gradient_it_is_the_identity(pair, case):
    item = case.item(1)
    slopes = []
    for network in pair:
        # of a sum, which does not ask for the value
        network(*item).sum().backward()
        known = (each.grad for each in network.parameters() if each.grad is not None)
        slopes.append(torch.cat([each.flatten() for each in known]))
    assert slopes[0].norm() > 0
    assert torch.allclose(*slopes)


def test_the_setting_is_true_or_false():
    with pytest.raises((ValueError, TypeCheckError), match="shrinkage"):
        Unrolled(shrinkage="yes")
