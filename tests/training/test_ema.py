"""Moving average of weights."""

import pytest
import torch
from torch import nn

from qsmnet.training.ema import MovingAverage


def set_to(network, value):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def test_follows_the_formula():
    network = nn.Linear(2, 1)
    set_to(network, 0.0)
    average, expected = MovingAverage(network, decay=0.5), 0.0
    for step, value in enumerate([1.0, 2.0, 4.0, 4.0], 1):
        set_to(network, value)
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.weights["bias"]) == pytest.approx(expected)
    assert average.steps == 4


def test_neither_shares_memory_with_the_network():
    network = nn.Linear(2, 1)
    average = MovingAverage(network)
    before = average.weights["weight"].clone()
    set_to(network, 7.0)
    assert torch.equal(average.weights["weight"], before)
    average.update(network)
    assert float(network.weight.detach()[0, 0]) == 7.0


def test_counters_are_copied_not_averaged():
    network = nn.BatchNorm1d(2)
    average = MovingAverage(network)
    network.num_batches_tracked.fill_(9)
    average.update(network)
    assert int(average.weights["num_batches_tracked"]) == 9


def test_goes_on_from_its_state():
    network = nn.Linear(3, 2)
    one, other = MovingAverage(network, 0.9), MovingAverage(nn.Linear(3, 2), 0.9)
    for _ in range(3):
        set_to(network, float(torch.rand(1)))
        one.update(network)
    state = one.state()
    other.load(state["steps"], state["weights"])
    set_to(network, 0.25)
    one.update(network)
    other.update(network)
    assert one.steps == other.steps == 4
    assert all(torch.equal(one.weights[k], other.weights[k]) for k in one.weights)
