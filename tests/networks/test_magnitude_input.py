"""The magnitude as an input: of no unit, optional, and seen by the U-Nets alone."""

import pytest
import torch

from qsmnet.networks.classical_residual import ClassicalResidual
from qsmnet.networks.kqsm import KQSM
from qsmnet.networks.problem import check_switch, relative_magnitude
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled

SMALL = {"base": 4, "levels": 2, "convolutions": 1, "start_iterations": 4}
NETWORKS = {
    "unrolled": lambda **settings: Unrolled(iterations=2, **SMALL | settings),
    "residual": lambda **settings: ClassicalResidual(**SMALL | settings),
}


@pytest.fixture(params=NETWORKS)
def build(request):
    return NETWORKS[request.param]


@pytest.fixture
def network(build, randomised):
    return randomised(build(magnitude=True))


@pytest.fixture(scope="module")
def magnitude(case):
    """Unlike in the two items of the case, with a decade between their units."""
    values = 0.2 + torch.rand(case.field.shape, generator=torch.Generator().manual_seed(7))
    return values * torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1, 1)


def test_no_network_wants_one_unasked(build):
    assert build(magnitude=True).magnitude
    others = (build(), UNet((4,)), KQSM(width=4, stages=1))
    assert not any(getattr(each, "magnitude", False) for each in others)


@torch.no_grad()
def test_its_unit_does_not_matter(network, case, magnitude):
    chi = network(*case.inputs, magnitude)
    assert torch.allclose(network(*case.inputs, 7 * magnitude), chi, rtol=0, atol=1e-6)
    assert torch.equal(network(*case.inputs, 2.0**-40 * magnitude), chi)


@torch.no_grad()
def test_it_matters_once_the_network_is_trained(build, network, case, magnitude):
    chi = network(*case.inputs, magnitude)
    flat, missing = network(*case.inputs, torch.ones_like(magnitude)), network(*case.inputs)
    for other in (flat, missing, network(*case.inputs, magnitude.flip(-1))):
        assert float((other - chi).norm()) > 1e-3 * float(chi.norm())
    untrained = build(magnitude=True).eval()
    assert torch.equal(untrained(*case.inputs, magnitude), untrained(*case.inputs))


@torch.no_grad()
def test_none_is_a_magnitude_of_zero(network, case, magnitude):
    missing = network(*case.inputs)
    assert missing.isfinite().all()
    for nothing in (None, 0 * magnitude, torch.full_like(magnitude, torch.nan)):
        assert torch.equal(network(*case.inputs, nothing), missing)


@torch.no_grad()
def test_without_its_weights_it_is_the_network_without(build, randomised, case, magnitude):
    plain, seeing = randomised(build()), build(magnitude=True).eval()
    weights = dict(plain.state_dict())
    for name in [name for name in weights if name.endswith("stem.weight")]:
        weights[name] = torch.nn.functional.pad(weights[name], (0, 0) * 3 + (0, 1))
    seeing.load_state_dict(weights)
    chi = plain(*case.inputs)
    assert torch.allclose(seeing(*case.inputs, magnitude), chi, rtol=0, atol=1e-6)
    # a network that does not want it is the same with it, to the last bit
    assert torch.equal(plain(*case.inputs, magnitude), chi)


@torch.no_grad()
def test_batch_equals_its_items(network, case, magnitude):
    together = network(*case.inputs, magnitude)
    for i in range(2):
        alone = network(*case.item(i), magnitude[i : i + 1])[0]
        assert torch.allclose(alone, together[i], rtol=0, atol=1e-6)


@torch.no_grad()
def test_it_is_not_seen_off_the_mask(network, case, magnitude):
    chi = network(*case.inputs, magnitude)
    elsewhere = torch.where(case.support > 0, magnitude, torch.nan)
    assert torch.equal(network(*case.inputs, elsewhere), chi)


def test_gradient_reaches_its_weights(build, case, magnitude):
    torch.manual_seed(0)
    network = build(magnitude=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        (network(*case.inputs, magnitude) - case.chi).square().mean().backward()
        optimizer.step()
    stems = [p for name, p in network.named_parameters() if name.endswith("stem.weight")]
    assert all(bool(stem.grad[:, -1].any()) for stem in stems)


def test_relative_magnitude_has_a_median_of_one_where_it_is_known(case, magnitude):
    wrong = magnitude.clone()
    wrong[:, :, 5, 5, 3], wrong[:, :, 6, 5, 3], wrong[:, :, 7, 5, 3] = -1.0, torch.inf, 1e4
    relative = relative_magnitude(wrong, case.support)
    for i in range(2):
        inside = case.support[i] > 0
        known = inside & (relative[i] > 0)
        assert float(relative[i][known].median()) == pytest.approx(1, rel=1e-6)
        assert int((inside & ~known).sum()) == 2
        assert not relative[i][~inside].any()
    assert float(relative.max()) == 4.0


@pytest.mark.parametrize("value", [1, "yes", None])
def test_what_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(ValueError, match="magnitude must be true or false"):
        check_switch("magnitude", value)
