"""Orthogonal updates: what they are, what they leave to Adam, and that they descend."""

import pytest
import torch
from torch import nn

from qsmnet.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (12, 12)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(1e-3 * matrix)
    spread = left.T @ found @ right.T
    diagonal = spread.diag()
    assert torch.allclose(spread, diagonal.diag(), atol=1e-4)
    assert (diagonal[values > 0.05 * values.norm()] > 0.6).all()
    assert (diagonal < 1.3).all()


def test_a_kernel_moves_by_the_size_of_adams_steps():
    kernel = nn.Parameter(torch.zeros(16, 12, 3, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0))
    Muon([kernel], lr=1e-2, weight_decay=0.0).step()
    rms = float(kernel.detach().square().mean().sqrt())
    assert rms == pytest.approx(0.2e-2, rel=0.35)


def test_what_is_no_matrix_has_adams_steps():
    torch.manual_seed(0)
    starts = [torch.randn(5), torch.randn(8, 30), torch.randn(())]
    gradients = [[torch.randn(s.shape) for s in starts] for _ in range(3)]
    ends = []
    for make in (
        lambda p: Muon(p, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1),
    ):
        parameters = [nn.Parameter(s.clone()) for s in starts]
        optimizer = make(parameters)
        for each in gradients:
            for parameter, gradient in zip(parameters, each, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        ends.append(parameters)
    for ours, theirs in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_least_squares_is_solved():
    torch.manual_seed(0)
    data, truth = torch.randn(200, 24), torch.randn(16, 24)
    weight = nn.Parameter(torch.zeros(16, 24))
    optimizer = Muon([weight], weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
        optimizer.zero_grad()
        (data @ (weight - truth).T).square().mean().backward()
        optimizer.step()
    assert float((weight.detach() - truth).norm()) < 0.02 * float(truth.norm())


def test_state_is_plain_and_comes_back():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(10, 12, 3), nn.Conv3d(12, 1, 1))
    optimizer = Muon(network.parameters())
    network(torch.randn(1, 10, 5, 5, 5)).sum().backward()
    optimizer.step()
    other = Muon(network.parameters())
    other.load_state_dict(optimizer.state_dict())
    for parameter in network.parameters():
        kept, found = optimizer.state[parameter], other.state[parameter]
        assert all(torch.equal(torch.as_tensor(kept[k]), torch.as_tensor(found[k])) for k in kept)


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"momentum": 1.0}, {"betas": (0.9, 1.5)}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="must"):
        Muon([nn.Parameter(torch.zeros(2))], **settings)
