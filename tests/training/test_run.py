"""Whole runs in one process: exact resume, fine-tuning, and what a run leaves behind."""

import json
from functools import partial

import pytest
import torch

from qsmnet.errors import OutputError, WeightsError
from qsmnet.networks.kqsm_he2022 import KQSMHe2022
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.training.deep_loss import Deep, Switched
from qsmnet.training.log import read_metrics
from qsmnet.training.losses import HeLoss, Loss
from qsmnet.training.module import InversionModule
from qsmnet.training.panel import Pictures
from qsmnet.training.run import Run, is_main_process, seed_everything, start_from
from qsmnet.weights.store import load_weights

EPOCH, STEPS = 2, 8
SMALL = {"iterations": 2, "base": 4, "levels": 2, "convolutions": 1, "start_iterations": 3}
CARDS = {
    "unet": {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 6]},
    "he": {
        "_target_": "qsmnet.networks.kqsm_he2022.KQSMHe2022",
        "width": 4,
        "blocks": 1,
        "dropout": 0.5,
    },
    "unrolled": {"_target_": "qsmnet.networks.unrolled.Unrolled", **SMALL},
}


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take longer than these runs."""
    monkeypatch.setattr(Pictures, "on_validation_end", lambda *_: None)


def module(kind="unet", steps=STEPS):
    seed_everything(3)
    # dropout makes the he network depend on the random state that a checkpoint must hold
    network, loss = {
        "unet": lambda: (UNet((4, 6)), Loss()),
        "he": lambda: (KQSMHe2022(width=4, blocks=1, dropout=0.5), HeLoss()),
        # the loss of its second half is another
        "unrolled": lambda: (Unrolled(**SMALL), Switched(Deep(Loss()), Loss(l1=0.0, l2=1.0), 0.6)),
    }[kind]()
    adam = partial(torch.optim.AdamW, lr=1e-2)
    return InversionModule(network, loss, adam, steps, warmup=2, ema_decay=0.9, seed=3)


def fit(folder, data, steps, kind="unet", resume=False):
    folder.mkdir(exist_ok=True)
    trainer = {
        "max_steps": steps,
        "accelerator": "cpu",
        "precision": "32-true",
        "enable_progress_bar": False,
    }
    made = module(kind)
    card = Run(folder, {"network": CARDS[kind]}, trainer, EPOCH).fit(made, data, resume)
    return made, card


def equal(one, other):
    """Nested tensors, bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["unet", "he", "unrolled"])
def test_resumed_run_is_the_uninterrupted_one_bit_by_bit(pairs, tmp_path, kind):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(whole, pairs(), STEPS, kind)
    # another process would start from nothing as well: new objects, another random state
    fit(broken, pairs(), STEPS // 2, kind)
    torch.rand(17)
    fit(broken, pairs(), STEPS, kind, resume=True)
    one, other = (torch.load(f / "last.ckpt", weights_only=True) for f in (whole, broken))
    assert one["global_step"] == other["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "average", "random_state"):
        assert equal(one[part], other[part]), part
    weights = [load_weights(f / "weights.safetensors")[0].state_dict() for f in (whole, broken)]
    assert equal(dict(weights[0]), dict(weights[1]))


@pytest.mark.usefixtures("undrawn")
def test_metrics_go_on_in_the_same_file(pairs, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(whole, pairs(), STEPS)
    fit(broken, pairs(), STEPS // 2)
    # written after the checkpoint by a process that was killed
    with (broken / "metrics.csv").open("a") as stream:
        stream.write(f"{STEPS // 2 + 1},train/loss,99\n")
    fit(broken, pairs(), STEPS, resume=True)
    rows = [read_metrics(f / "metrics.csv") for f in (whole, broken)]
    assert rows[0] == rows[1]
    assert {name for _, name, _ in rows[0]} >= {"train/loss", "train/l1", "val/loss", "val/nrmse"}


def test_run_leaves_pictures_checkpoint_and_weights(pairs, tmp_path):
    made, card = fit(tmp_path, pairs(), 2 * EPOCH)
    names = {path.name for path in tmp_path.iterdir()} - {"bank"}
    panels = {f"panel_{step:06d}.png" for step in (EPOCH, 2 * EPOCH)}
    assert names == panels | {
        "curve.png",
        "last.ckpt",
        "metrics.csv",
        "weights.json",
        "weights.safetensors",
    }
    assert card == json.loads((tmp_path / "weights.json").read_text())
    assert card["steps"] == 2 * EPOCH
    assert set(card["validation"]) == {"val/loss", "val/nrmse"}
    network, _ = load_weights(tmp_path / "weights.safetensors")
    assert equal(dict(network.state_dict()), made.average.weights)


@pytest.mark.usefixtures("undrawn")
def test_the_first_run_replaces_no_weights(pairs, tmp_path):
    fit(tmp_path, pairs(), EPOCH)
    with pytest.raises(OutputError, match="exists already"):
        fit(tmp_path, pairs(), EPOCH)


@pytest.mark.usefixtures("undrawn")
def test_fine_tuning_begins_at_the_given_weights(pairs, tmp_path):
    fit(tmp_path, pairs(), EPOCH)
    weights = tmp_path / "weights.safetensors"
    fresh = module()
    start_from(fresh, str(weights))
    expected = dict(load_weights(weights)[0].state_dict())
    assert equal(dict(fresh.network.state_dict()), expected)
    assert equal(fresh.average.weights, expected)
    assert fresh.average.steps == 0


@pytest.mark.usefixtures("undrawn")
def test_weights_of_another_network_are_refused(pairs, tmp_path):
    fit(tmp_path, pairs(), EPOCH)
    with pytest.raises(WeightsError, match="differs from this run's network"):
        start_from(module("he"), str(tmp_path / "weights.safetensors"))


def test_a_single_process_is_the_main_one():
    assert is_main_process()
