"""The splitting of total variation against proximal steps written out."""

import pytest
import torch

from qsmnet.inversion.gradient import difference, difference_adjoint, edges_inside
from qsmnet.inversion.gradient_splitting import GradientSplitting

SHAPE, VOXEL = (6, 7, 8), (0.7, 1.1, 1.6)


def volume(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def support() -> torch.Tensor:
    inside = torch.zeros(SHAPE)
    inside[1:5, 1:6, 1:7] = 1
    return inside


def shrunk(gradient: torch.Tensor, axis: int, threshold: float) -> torch.Tensor:
    """P of the gradient per mm: shrunk on edges inside, as it is elsewhere."""
    inside = edges_inside(support(), axis) > 0
    small = gradient.sign() * (gradient.abs() - threshold).clamp(min=0)
    return torch.where(inside, small, gradient)


@pytest.mark.parametrize("relaxation", [1.0, 1.6])
def test_two_iterations_are_those_of_the_definition(relaxation: float) -> None:
    splitting = GradientSplitting(support(), VOXEL, 0.4, relaxation)
    splitting.start_from(volume(0))
    variables = [difference(volume(0), axis) / VOXEL[axis] for axis in range(3)]
    for seed in (1, 2):
        expected = sum(
            difference_adjoint(2 * shrunk(v, axis, 0.4) - v, axis) / VOXEL[axis]
            for axis, v in enumerate(variables)
        )
        torch.testing.assert_close(splitting.pull(), expected, rtol=1e-4, atol=1e-4)
        splitting.advance(volume(seed))
        for axis in range(3):
            gap = difference(volume(seed), axis) / VOXEL[axis] - shrunk(variables[axis], axis, 0.4)
            variables[axis] = variables[axis] + relaxation * gap


def test_denoises() -> None:
    """min |x - y|^2 / 2 + lambda TV(x) by its own iteration: a step keeps its edge, loses noise."""
    torch.manual_seed(0)
    shape = (16, 16, 16)
    step = torch.zeros(shape)
    step[4:12, 4:12, 4:12] = 1.0
    noisy = step + 0.2 * torch.randn(shape)
    splitting = GradientSplitting(torch.ones(shape), (1.0, 1.0, 1.0), 0.1)
    rho, axes = 2.0, (-3, -2, -1)
    frequencies = [2 - 2 * torch.cos(2 * torch.pi * torch.arange(16) / 16)] * 3
    total = frequencies[0][:, None, None] + frequencies[1][:, None] + frequencies[2][:9]
    chi = noisy
    splitting.start_from(chi)
    for _ in range(30):
        spectrum = torch.fft.rfftn(noisy + rho * splitting.pull(), dim=axes) / (1 + rho * total)
        chi = torch.fft.irfftn(spectrum, s=shape, dim=axes)
        splitting.advance(chi)
    assert (chi - step).norm() < 0.5 * (noisy - step).norm()
