"""The training step: schedule, averaged validation, and a loss that is not finite."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from qsmnet.errors import NumericalError
from qsmnet.networks.unet import UNet
from qsmnet.training.losses import Loss
from qsmnet.training.module import InversionModule, relative_error


def module(steps=100, warmup=10, seed=5):
    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=1e-3)
    return InversionModule(UNet((4,)), Loss(), adam, steps, warmup, seed=seed)


def test_learning_rate_rises_then_falls_to_a_hundredth():
    factor = module().learning_rate_factor
    assert [factor(0), factor(4), factor(9), factor(10)] == pytest.approx([0.1, 0.5, 1, 1])
    assert factor(55) == pytest.approx(0.505)
    assert factor(100) == factor(500) == pytest.approx(0.01)
    values = [factor(s) for s in range(10, 101)]
    assert values == sorted(values, reverse=True)


def test_learning_rate_without_warm_up():
    assert module(warmup=0).learning_rate_factor(0) == pytest.approx(1)


def test_optimizer_steps_through_the_schedule():
    made = module(steps=20, warmup=4).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert made["lr_scheduler"]["interval"] == "step"


def test_prediction_is_zero_outside_of_the_mask(batch):
    chi = module()(batch)
    assert chi.shape == batch.chi.shape
    assert not chi[batch.mask == 0].any()


def test_a_loss_that_is_not_finite_stops_with_seed_and_items(batch):
    broken = batch.chi.clone()
    broken[0, 0, 6, 6, 5] = torch.nan
    with pytest.raises(NumericalError, match=r"seed 5, items \[4, 9\]") as error:
        module().training_step(replace(batch, chi=broken, mask=torch.ones_like(broken)), 0)
    assert error.value.exit_code == 9


def test_averaged_weights_are_validated_and_the_live_ones_put_back():
    made = module()
    live = {k: v.clone() for k, v in made.network.state_dict().items()}
    made.average.load(3, {k: torch.zeros_like(v) for k, v in live.items()})
    made.on_validation_epoch_start()
    assert not any(bool(v.any()) for v in made.network.state_dict().values())
    made.on_validation_epoch_end()
    assert all(torch.equal(v, live[k]) for k, v in made.network.state_dict().items())


def test_checkpoint_holds_average_and_random_state():
    made, other = module(), module()
    made.on_train_batch_end()
    checkpoint = {}
    torch.manual_seed(123)
    made.on_save_checkpoint(checkpoint)
    drawn = torch.rand(3)
    other.on_load_checkpoint(checkpoint)
    assert torch.equal(torch.rand(3), drawn)
    assert other.average.steps == 1


def test_relative_error_is_nrmse_in_percent(batch):
    def error(chi):
        return relative_error(chi, batch.chi, batch.mask).tolist()

    assert error(batch.chi + 3) == pytest.approx([0, 0], abs=1e-3)
    assert error(0 * batch.chi) == pytest.approx([100, 100])
    assert error(1.2 * batch.chi) == pytest.approx([20, 20], rel=1e-4)


def test_training_lowers_the_loss(batch):
    # a map that is three times the field is learnt in a few steps
    made, easy = module(), replace(batch, chi=3 * batch.field)
    optimizer = torch.optim.Adam(made.network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss, _ = made.loss(made.loss.predict(made.network, easy), easy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
