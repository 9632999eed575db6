"""Deep supervision, and one loss after another."""

import math
from functools import partial

import pytest
import torch

from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.training.deep_loss import Deep, Switched
from qsmnet.training.losses import Loss
from qsmnet.training.module import InversionModule


def unrolled():
    torch.manual_seed(0)
    return Unrolled(iterations=3, base=2, levels=1, convolutions=1, start="tkd")


def guesses(batch, n):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(n, *batch.chi.shape, generator=generator)
    return (batch.chi + 0.05 * noise) * batch.mask


def test_estimates_count_half_as_much_each_step_back(batch):
    loss, prediction = Loss(), guesses(batch, 4)
    total, terms = Deep(loss, weight=0.3, decay=0.5)(prediction, batch)
    parts = [float(loss(each, batch)[0]) for each in prediction]
    weights = [0.3 * 0.25, 0.3 * 0.5, 0.3, 1.0]
    assert float(total) == pytest.approx(sum(w * p for w, p in zip(weights, parts, strict=True)))
    assert float(terms["first"]) == pytest.approx(parts[0])
    assert float(terms["l1"]) == pytest.approx(float(loss(prediction[-1], batch)[1]["l1"]))


def test_with_an_offset_a_step_counts_by_the_percentage_of_its_error(batch):
    prediction = guesses(batch, 2).requires_grad_()
    plain, equal = Deep(Loss()), Deep(Loss(), log_offset=0.05)
    value, logarithm = plain(prediction, batch)[0], equal(prediction, batch)[0]
    assert logarithm.item() == pytest.approx(math.log(0.05 + value.item()))
    (descent,) = torch.autograd.grad(value, prediction)
    (scaled,) = torch.autograd.grad(logarithm, prediction)
    torch.testing.assert_close(scaled, descent / (0.05 + value.detach()))


@pytest.mark.parametrize("offset", [0.0, -1.0, float("nan"), float("inf")])
def test_offset_is_above_0(offset):
    with pytest.raises(ValueError, match="log_offset must be a number above 0"):
        Deep(Loss(), log_offset=offset)


def test_all_estimates_of_a_network_are_judged(batch):
    network = unrolled()
    prediction = Deep(Loss()).predict(network, batch)
    assert prediction.shape == (4, *batch.chi.shape)
    inputs = batch.field, batch.support, batch.noise, batch.mask, batch.geometry
    assert torch.equal(prediction[-1], network(*inputs))


def test_network_without_estimates_has_its_result(batch):
    network, deep = UNet((4,)), Deep(Loss())
    prediction = deep.predict(network, batch)
    assert prediction.shape == (1, *batch.chi.shape)
    total, terms = deep(prediction, batch)
    assert torch.equal(total, Loss()(prediction[0], batch)[0])
    assert "first" not in terms


@pytest.mark.parametrize(("step", "first"), [(0, True), (79, True), (80, False), (500, False)])
def test_loss_is_switched_at_its_step(step, first):
    one, other = Loss(), Loss(l1=0.0, l2=1.0)
    assert Switched(one, other, 0.8).at(step, 100) is (one if first else other)


def test_module_asks_for_the_loss_of_its_step(batch, monkeypatch):
    one, other = Deep(Loss()), Deep(Loss(l1=0.0, l2=1.0, gradient=0.0))
    adam = partial(torch.optim.Adam, lr=1e-3)
    made = InversionModule(unrolled(), Switched(one, other), adam, steps=10)
    logged = []
    monkeypatch.setattr(made, "log", lambda *_, **__: None)
    monkeypatch.setattr(made, "log_dict", lambda terms, **_: logged.append(set(terms)))
    for step in (7, 8):
        monkeypatch.setattr(InversionModule, "global_step", property(lambda _, s=step: s))
        made.training_step(batch, 0)
    assert logged == [
        {"train/l1", "train/gradient", "train/first"},
        {"train/l2", "train/first"},
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deep(Loss(), weight=-0.1),
        lambda: Deep(Loss(), decay=1.5),
        lambda: Switched(Loss(), Loss(), share=float("nan")),
    ],
)
def test_shares_are_from_0_to_1(make):
    with pytest.raises(ValueError, match="must be a number from 0 to 1"):
        make()
