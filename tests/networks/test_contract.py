"""What every network of the project's own promises, and the robust scale."""

import pytest
import torch

from qsmnet.networks.classical_residual import ClassicalResidual
from qsmnet.networks.contract import robust_scale
from qsmnet.networks.kqsm import KQSM
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled

SMALL = {"base": 4, "levels": 2, "convolutions": 1, "start_iterations": 4}

NETWORKS = {
    "unet": lambda: UNet((4, 6, 8)),
    "kqsm": lambda: KQSM(stages=2, width=6),
    "unrolled": lambda: Unrolled(iterations=2, **SMALL),
    "residual": lambda: ClassicalResidual(**SMALL),
}


@pytest.fixture(params=NETWORKS)
def network(request, randomised):
    return randomised(NETWORKS[request.param]())


@torch.no_grad()
def test_odd_sizes_come_back_as_they_went_in(network, case):
    chi = network(*case.inputs)
    assert chi.shape == case.field.shape
    assert chi.dtype == torch.float32
    assert chi.isfinite().all()
    assert chi.abs().max() > 0


@torch.no_grad()
def test_batch_equals_its_items(network, case):
    together = network(*case.inputs)
    for i in range(2):
        assert torch.allclose(
            network(*case.item(i))[0], together[i], rtol=1e-4, atol=1e-5 * float(together.std())
        )


@pytest.mark.parametrize("factor", [1e-3, 50.0])
@torch.no_grad()
def test_degree_one_homogeneous(network, case, factor):
    chi = network(*case.inputs)
    scaled = network(
        factor * case.field, case.support, factor * case.noise, case.support, case.geometry
    )
    assert torch.allclose(scaled / factor, chi, rtol=1e-3, atol=1e-4 * float(chi.std()))


@torch.no_grad()
def test_noise_is_an_input(network, case):
    chi = network(*case.inputs)
    noisier = network(case.field, case.support, 10 * case.noise, case.support, case.geometry)
    assert float((noisier - chi).abs().max()) > 1e-3 * float(chi.abs().max())


@torch.no_grad()
def test_field_where_it_is_unknown_is_not_seen(network, case):
    chi = network(*case.inputs)
    garbage = case.field + 5 * (1 - case.support)
    assert torch.allclose(network(garbage, *case.inputs[1:]), chi, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_empty_field_gives_a_finite_map(network, case):
    nothing = torch.zeros_like(case.field)
    assert network(nothing, case.support, nothing, case.support, case.geometry).isfinite().all()
    assert network(nothing, nothing, nothing, nothing, case.geometry).isfinite().all()


def test_learns_in_half_precision(network, case):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chi = network(*case.inputs)
    assert chi.dtype == torch.float32
    (chi - case.chi).square().mean().backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_robust_scale_is_the_mean_absolute_field_where_known():
    field = torch.tensor([1.0, -3.0, 100.0, 0.0]).reshape(1, 1, 4, 1, 1)
    support = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 4, 1, 1)
    assert float(robust_scale(field, support)) == 2.0
    assert float(robust_scale(-7 * field, support)) == 14.0
    assert float(robust_scale(0 * field, support)) == pytest.approx(1e-9)
    assert float(robust_scale(field, 0 * support)) == pytest.approx(1e-9)


def test_robust_scale_is_taken_per_item():
    field = torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 3, 3, 3)
    assert robust_scale(field, torch.ones_like(field)).flatten().tolist() == [1.0, 4.0]
