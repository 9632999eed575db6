"""``qsmnet train``: from a command to weights, resumed, fine-tuned, on own pairs; and refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from train_command import TINY, one_error, train

from qsmnet.cli import main
from qsmnet.cli.train import _card, _module
from qsmnet.errors import ResourceError
from qsmnet.geometry import Geometry
from qsmnet.inversion.trained_range import training_range_flags
from qsmnet.simulate.acquisition import Acquisition, voxel_size_list
from qsmnet.training import crops
from qsmnet.training.log import read_metrics
from qsmnet.training.panel import Pictures
from qsmnet.weights.store import load_weights, released_names

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures take longer than these runs."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Pictures, "on_validation_end", lambda *_: None)


@pytest.fixture
def drawn():
    """Ask for pictures."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a finished run of four steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(*TINY, f"out={folder}", "trainer.max_steps=4") == 0
    return folder


def test_run_leaves_all_that_is_promised(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "bank",
        "config.yaml",
        "last.ckpt",
        "metrics.csv",
        "weights.json",
        "weights.safetensors",
    }
    assert {name for _, name, _ in read_metrics(run / "metrics.csv")} >= {"train/loss", "val/nrmse"}


def test_card_says_what_was_trained(run):
    network, card = load_weights(run / "weights.safetensors")
    assert sum(p.numel() for p in network.parameters()) > 1000
    assert card["network"] == {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 6]}
    assert card["steps"] == 4
    assert card["trained_for"]["voxel_size_mm"] == [1.0, 1.0]
    assert card["trained_for"]["tilt_degrees"] == 180.0
    assert card["recipe"]["seed"] == 1
    assert card["recipe"]["schedule"] == "cosine"
    assert "init" not in card
    assert not {"bank", "labels"} & set(card["recipe"]["data"])
    assert set(card) >= {"commit", "hardware", "qsmnet", "validation", "sha256"}


def test_a_run_is_not_overwritten(run, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    assert train(*TINY, f"out={run}") == 8
    assert f"resume={run}" in one_error(capsys)
    assert before == {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["experiment=smoke"], 2, "needs either out=DIR or resume=DIR"),
        (["out={tmp}/a", "resume={tmp}/b"], 2, "needs either out=DIR or resume=DIR"),
        (["resume={tmp}/nothing"], 3, "holds no last.ckpt"),
        (["out={tmp}/a", "experiment=smok"], 2, "smok"),
        (["out={tmp}/a", "optimiser.lr=1"], 2, "optimiser"),
        (["out={tmp}/a", *TINY, "network.depth=3"], 2, "depth"),
        (["out={tmp}/a", *TINY, "+network.depth=3"], 2, "depth"),
        (["out={tmp}/a", *TINY, "epoch=0"], 2, "whole number"),
        (["out={tmp}/a", *TINY, "seed=x"], 2, "whole number"),
        (["out={tmp}/a", *TINY, "schedule=linear"], 2, "cosine or step"),
        (["out={tmp}/a", *TINY, "data.crop=[4,4,4]", "data.field_of_view=[1,2]"], 2, "crop=null"),
        (["out={tmp}/a", *TINY, "network._target_=os.system"], 2, "os.system"),
        (["out={tmp}/a", *TINY, "loss._target_=qsmnet.io.files.os.system"], 2, "os.system"),
        (["out={tmp}/a", *TINY, "optimizer._target_=torch.optim.adam.torch.load"], 2, "torch.load"),
        (["out={tmp}/a", *TINY, "init=no_such_weights"], 6, "no such released weights"),
        (["out={tmp}/a", "data=stored", "experiment=unet"], 2, "folder"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, capsys, settings, code, words):
    assert train(*(each.format(tmp=tmp_path) for each in settings)) == code
    assert words in one_error(capsys)
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_run_without_a_checkpoint_says_what_to_do(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert train(*TINY, f"out={tmp_path}") == 8
    assert "remove it (no checkpoint yet)" in one_error(capsys)
    assert train(f"resume={tmp_path}") == 3
    assert "remove the folder" in one_error(capsys)


def test_config_of_a_run_is_checked_before_it_is_obeyed(run, tmp_path, capsys):
    config = OmegaConf.load(run / "config.yaml")
    config.network._target_ = "os.system"
    OmegaConf.save(config, tmp_path / "config.yaml")
    (tmp_path / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes())
    assert train(f"resume={tmp_path}") == 2
    assert "os.system" in one_error(capsys)


def test_checkpoint_that_holds_code_is_not_run(run, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made_by_a_checkpoint"),))

    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    torch.save({"global_step": Evil()}, tmp_path / "last.ckpt")
    assert train(f"resume={tmp_path}") != 0
    assert not (tmp_path / "made_by_a_checkpoint").exists()
    one_error(capsys)


def test_longer_run_goes_on_from_another_place(tmp_path, monkeypatch):
    """Two steps and four, with a folder that was moved in between, are six in one go."""
    settings = [*TINY, "schedule_steps=6"]
    assert train(*settings, f"out={tmp_path / 'whole'}", "trainer.max_steps=6") == 0
    monkeypatch.chdir(tmp_path)
    assert train(*settings, "out=part", "trainer.max_steps=2") == 0
    (tmp_path / "part").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert train(f"resume={tmp_path / 'moved'}", "trainer.max_steps=6") == 0
    one, other = (tmp_path / name / "weights.safetensors" for name in ("whole", "moved"))
    assert one.read_bytes() == other.read_bytes()
    assert json.loads(other.with_suffix(".json").read_text())["steps"] == 6
    rows = [read_metrics(path.parent / "metrics.csv") for path in (one, other)]
    assert rows[0] == rows[1]


def test_fine_tuning_begins_at_the_given_weights_and_says_which(run, tmp_path):
    # a learning rate of 0 leaves the weights as they were
    weights = tmp_path / "start.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy((run / "weights").with_suffix(suffix), weights.with_suffix(suffix))
    settings = [f"init={weights}", "optimizer.lr=0", "schedule_steps=4"]
    folder = tmp_path / "run"
    assert train(*TINY, f"out={folder}", *settings, "trainer.max_steps=2") == 0
    network, card = load_weights(folder / "weights.safetensors")
    before, start = load_weights(weights)
    for key, value in before.state_dict().items():
        assert torch.allclose(network.state_dict()[key], value, atol=1e-7)
    assert card["init"] == {"weights": str(weights), "sha256": start["sha256"]}
    # the run goes on, and knows where it came from, without them
    weights.unlink()
    assert train(f"resume={folder}", "trainer.max_steps=4") == 0
    assert load_weights(folder / "weights.safetensors")[1]["init"] == card["init"]


def test_without_an_average_the_last_weights_are_released(tmp_path):
    assert train(*TINY, f"out={tmp_path}", "ema_decay=0", "trainer.max_steps=4") == 0
    live = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    network, _ = load_weights(tmp_path / "weights.safetensors")
    for key, value in network.state_dict().items():
        assert torch.equal(value, live[f"network.{key}"]), key


def test_weights_of_another_network_are_refused(run, tmp_path, capsys):
    settings = [f"init={run / 'weights.safetensors'}", "network.channels=[4,8]"]
    assert train(*TINY, f"out={tmp_path / 'a'}", *settings) == 6
    assert "differs from this run's network" in one_error(capsys)


def composed(*settings):
    with initialize_config_module("qsmnet.configs", version_base="1.3"):
        return compose("train", overrides=["out=run", *settings])


def test_published_kqsm_is_optimised_as_published():
    """Adam at 1e-4, times 0.9 after every 50 of 500 epochs; nothing else moves the weights."""
    config = composed("experiment=kqsm_he2022", "network.width=2", "network.blocks=1")
    assert config.trainer.gradient_clip_val is None
    assert config.data.batch_size == 1
    module = _module(config)
    assert module.average.decay == 0
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["weight_decay"] == 0
    epoch = config.trainer.max_steps // 500
    ours = [module.learning_rate_factor(epoch * i) for i in range(500)]
    adam = torch.optim.Adam(module.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(adam, step_size=50, gamma=0.9)
    theirs = []
    for _ in range(500):
        theirs.append(schedule.get_last_lr()[0])
        adam.step()
        schedule.step()
    assert [optimizer.defaults["lr"] * factor for factor in ours] == pytest.approx(theirs)


def trained_for(*settings):
    config = OmegaConf.to_container(composed(*settings), resolve=True)
    return _card(config)["trained_for"]


def test_card_of_a_list_of_voxel_sizes_has_its_extremes():
    for seed in (1, 2):
        edges = [edge for size in voxel_size_list(seed, 64, 0.4) for edge in size]
        found = trained_for("experiment=kqsm", f"seed={seed}")
        assert found["voxel_size_mm"] == [min(edges), max(edges)]
    found = trained_for("simulator.acquisition.voxel_size=[0.8,1,2.5]")
    assert found["voxel_size_mm"] == [0.8, 2.5]
    assert found["slice_ratio"] == [2.5, 3.125]
    assert found["in_plane_ratio"] == 1.25


@pytest.mark.parametrize(
    ("settings", "slices"),
    [
        (["data.turns=true"], [0.25, 4.0]),
        (["data.turns=false"], [4.0, 4.0]),
        # what is no cube is turned no further than its edges allow
        (["data.turns=true", "simulator.shape=[64,64,48]"], [4.0, 4.0]),
        (["data.turns=true", "simulator.same_extent=true"], [4.0, 4.0]),
        # a cube is turned before it is cut
        (["data.turns=true", "data.crop=[32,32,24]"], [0.25, 4.0]),
        (["data.turns=true", "data.field_of_view=[1,1.1]"], [0.25, 4.0]),
    ],
)
def test_card_tells_which_way_slices_lie(settings, slices):
    chosen = ["data=anatomy", "data.labels=none", "simulator.acquisition.voxel_size=[0.5,0.5,2]"]
    found = trained_for(*chosen, *settings)
    assert found["slice_ratio"] == slices
    assert found["in_plane_ratio"] == (4.0 if slices[0] < 1 else 1.0)


def test_no_pair_that_is_drawn_lies_outside_of_its_card():
    card = {"trained_for": trained_for("experiment=unrolled_joint")}
    for size in voxel_size_list(1, 64, 0.4):
        geometry = Geometry(size, (0.0, 0.0, 1.0))
        assert training_range_flags(card, geometry, [0.0, 0.03]) == ()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["tilt=10"], 10),
        (["tilt=10", "axial=1"], 0),
        (["b0_dir=[0,3,-3]"], 45),
    ],
)
def test_card_tells_the_largest_tilt(settings, expected):
    found = trained_for(*(f"simulator.acquisition.{setting}" for setting in settings))
    assert found["tilt_degrees"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("free", "strong", "expected"),
    [
        (0.0, 0.0, [0.001, 0.004]),
        (0.2, 0.0, [0.0, 0.004]),
        (0.2, 0.1, [0.0, 0.012]),
        (0.0, 1.0, [0.004, 0.012]),
        (1.0, 0.0, [0.0, 0.0]),
    ],
)
def test_card_tells_the_noise_that_is_drawn(free, strong, expected):
    settings = {"noise": [0.001, 0.004], "noise_free": free, "strongly_noisy": strong}
    names = (f"simulator.acquisition.{k}={v}".replace(" ", "") for k, v in settings.items())
    assert trained_for(*names)["noise_ppm"] == pytest.approx(expected)
    acquisition = Acquisition(**settings)
    rng = np.random.default_rng(0)
    levels = [acquisition.draw(rng)["noise"]["level"] for _ in range(2000)]
    assert [min(levels), max(levels)] == pytest.approx(expected, rel=0.02)


@pytest.fixture(scope="module")
def own_pairs(tmp_path_factory):
    """Settings of training on stored pairs."""
    folder = tmp_path_factory.mktemp("own")
    scenes = ["simulator=primitives", "simulator.shape=[12,14,16]", "n=2"]
    for split in ("train", "validate"):
        assert main(["simulate", f"out={folder / split}", f"split={split}", *scenes]) == 0
    return [
        "data=stored",
        f"data.folder={folder / 'train'}",
        f"data.validation_folder={folder / 'validate'}",
        "data.validation_items=1",
        "epoch=2",
        "trainer.max_steps=2",
        "trainer.enable_progress_bar=false",
    ]


#: Values that make a network or a data set small, where it has the setting and uses it.
SMALL = {
    "network": {"channels": [4, 6], "width": 4, "blocks": 1, "stages": 2},
    "data": {"crop": [8, 8, 8]},
    "stages": {"scenes": 2, "validation_scenes": 1, "validation_crops": 1, "fitted_scenes": 1},
}
EXPERIMENTS = sorted(path.stem for path in CONFIGS.glob("experiment/*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_on_own_pairs(experiment, own_pairs, tmp_path):
    settings = [f"experiment={experiment}", *own_pairs]
    config = composed(*settings)
    # what goes on from other weights
    settings += ["init=unrolled"] if OmegaConf.is_missing(config, "init") else []
    smaller = [
        f"{group}.{name}={value}".replace(" ", "")
        for group, values in SMALL.items()
        for name, value in values.items()
        if config.get(group) is not None and config[group].get(name) is not None
    ]
    assert train(*settings, *smaller, f"out={tmp_path}") == 0
    _, card = load_weights(tmp_path / "weights.safetensors")
    assert card["steps"] == 2 * len(card.get("stages", ["one"]))
    assert card["recipe"]["data"]["_target_"] == "qsmnet.training.stored.stored_pairs"
    # what the pairs cover is unknown, so that nothing is claimed
    assert "trained_for" not in card
    assert "simulator" not in card["recipe"]


def test_a_staged_run_that_fails_at_once_leaves_nothing(own_pairs, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise ResourceError("disk", "is full", "make room")

    monkeypatch.setattr("qsmnet.training.scenes.Scenes.simulate", fail)
    small = ("stages.scenes=1", "stages.validation_scenes=1", "data.workers=0")
    out = tmp_path / "run"
    assert train("experiment=unrolled", *own_pairs, *small, f"out={out}") != 0
    assert "disk: is full" in one_error(capsys)
    assert not list(out.iterdir())
    (out / "scenes").mkdir()
    assert train("experiment=unrolled", *own_pairs, *small, f"out={out}") != 0
    assert "scenes: exists already" in one_error(capsys)


def test_scenes_and_maps_of_a_stopped_run_are_gone_on_from(
    own_pairs, tmp_path, capsys, monkeypatch
):
    small = ("stages.scenes=2", "stages.validation_scenes=1", "data.workers=0")
    small = (*small, "stages.fitted_scenes=0", "stages.crop=8", "network.base=4")
    small = (*small, "network.start_iterations=2")
    first, out = tmp_path / "first", tmp_path / "run"
    assert train("experiment=unrolled", *own_pairs, *small, f"out={first}") == 0
    small = (*small, f"init={first / 'weights.safetensors'}", "optimizer.lr=0")
    write, written = crops._write, []
    with monkeypatch.context() as patch:

        def stopped(path, content):
            if path == out / "stage_1" / "train" / "00001.npy":
                raise ResourceError("disk", "is full", "make room")
            write(path, content)

        patch.setattr(crops, "_write", stopped)
        assert train("experiment=unrolled", *own_pairs, *small, f"out={out}") != 0
    assert "disk: is full" in one_error(capsys)
    assert train("experiment=unrolled", *own_pairs, *small, f"out={out}") != 0
    assert f"resume={out}" in one_error(capsys)
    monkeypatch.setattr(crops, "_write", lambda *new: written.append(new[0]) or write(*new))
    assert train(f"resume={out}") == 0
    assert out / "stage_1" / "train" / "00001.npy" in written
    assert out / "stage_1" / "train" / "00000.npy" not in written
    begun, card = load_weights(first / "weights.safetensors")
    found, again = load_weights(out / "weights.safetensors")
    assert again["init"]["sha256"] == card["sha256"]
    # an optimizer that stands still
    for name, value in found.state_dict().items():
        assert torch.equal(value, begun.state_dict()[name])


def test_own_pairs_are_framed_for_a_network_that_needs_it(own_pairs):
    config = composed("experiment=kqsm", *own_pairs)
    simulated = composed("experiment=kqsm")
    assert config.data.field_of_view == simulated.data.field_of_view == [1.1, 1.4]
    assert config.data.crop is None


def test_help(capsys):
    assert train("--help") == 0
    assert "example: qsmnet train" in capsys.readouterr().out


@pytest.mark.skipif("unet" not in released_names(), reason="no released weights")
def test_released_weights_can_be_fine_tuned(tmp_path):
    settings = [s for s in TINY if not s.startswith("network.")]
    network = load_weights("unet")[1]["network"]
    channels = f"network.channels={network['channels']}".replace(" ", "")
    run_ = [f"out={tmp_path}", "init=unet", channels, "trainer.max_steps=2"]
    assert train(*settings, *run_) == 0


def command(*settings):
    return [sys.executable, "-m", "qsmnet.cli", "train", *settings]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_for(path, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path, workers):
    settings = [*TINY, "trainer.max_steps=40", "threads=1", f"data.workers={workers}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(*settings, f"out={whole}"), env=environment(), check=True)
    process = subprocess.Popen(
        command(*settings, f"out={broken}"), env=environment(), start_new_session=True
    )
    wait_for(broken / "last.ckpt", process)
    # the whole group, loaders too: as a machine that goes down
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (broken / "weights.safetensors").exists()
    subprocess.run(command(f"resume={broken}"), env=environment(), check=True, cwd="/")
    one, other = (torch.load(f / "last.ckpt", weights_only=True) for f in (whole, broken))
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    weights = [(f / "weights.safetensors").read_bytes() for f in (whole, broken)]
    assert weights[0] == weights[1]
    rows = [read_metrics(f / "metrics.csv") for f in (whole, broken)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
    """Lightning starts the second by the same command; items are shared, one of the two writes."""
    settings = [*TINY, "trainer.max_steps=4", "trainer.accelerator=cpu", "trainer.devices=2"]
    folder = tmp_path / "run"
    done = subprocess.run(
        command(*settings, f"out={folder}", "threads=1"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights.safetensors") == 1
    _, card = load_weights(folder / "weights.safetensors")
    assert card["steps"] == 4
    rows = read_metrics(folder / "metrics.csv")
    assert len(rows) == len({row[:2] for row in rows})


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_smoke_experiment_runs_as_it_stands(tmp_path):
    assert train("experiment=smoke", f"out={tmp_path}", "trainer.enable_progress_bar=false") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"curve.png", "panel_000010.png", "panel_000020.png"} <= names
