"""The residual network: its classical map, plus what it learns."""

import pytest
import torch

from qsmnet.networks.classical import classical_map
from qsmnet.networks.classical_residual import ClassicalResidual
from qsmnet.networks.problem import Problem

SMALL = {"base": 4, "levels": 2, "convolutions": 1, "start_iterations": 4, "kernel": "sampled"}


@pytest.mark.parametrize("start", ["tkd", "tv"])
@torch.no_grad()
def test_untrained_it_is_its_classical_map(case, start):
    network = ClassicalResidual(**SMALL, start=start)
    problem = Problem.of(*case.inputs, "sampled", 1.25, "median")
    expected = problem.scale * classical_map(problem, start, 4)
    assert torch.equal(network(*case.inputs), expected)


@torch.no_grad()
def test_correction_is_homogeneous_and_in_the_mask_alone(case, randomised):
    network = randomised(ClassicalResidual(**SMALL))
    field, support, noise, mask, geometry = case.inputs
    chi = network(*case.inputs)
    scaled = network(3 * field, support, 3 * noise, mask, geometry)
    assert torch.allclose(scaled / 3, chi, atol=1e-5 * float(chi.abs().max()))
    assert not chi[mask == 0].any()


@torch.no_grad()
def test_geometry_matters(case, randomised):
    network = randomised(ClassicalResidual(**SMALL))
    field, support, noise, mask, _ = case.item(0)
    maps = [network(field, support, noise, mask, [geometry]) for geometry in case.geometry]
    assert not torch.allclose(*maps, rtol=0.1)


def test_gradient_reaches_every_parameter_after_one_step(case):
    torch.manual_seed(0)
    network = ClassicalResidual(**SMALL)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        (network(*case.inputs) - case.chi).square().mean().backward()
        optimizer.step()
    assert all(p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("thresholds", [[0.0], [0.1, 0.7]])
def test_thresholds_are_those_of_the_kernel(thresholds):
    with pytest.raises(ValueError, match="thresholds must lie in"):
        ClassicalResidual(thresholds=thresholds)
