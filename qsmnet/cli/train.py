"""``qsmnet train experiment=NAME out=DIR``: a network from simulated or stored pairs."""

import contextlib
import math
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from qsmnet.cli.compose import available
from qsmnet.cli.hydra_app import (
    build,
    check_targets,
    config_dir,
    folder_named,
    run_app,
    share,
    whole_number,
)
from qsmnet.errors import OutputError, UnreadableError, UsageError
from qsmnet.io.files import prepare_output_folder, write_text

if TYPE_CHECKING:
    from qsmnet.simulate.acquisition import Acquisition
    from qsmnet.training.module import InversionModule

# what a run writes, its bank apart: taken back if it ends before there is anything to go on from
_FILES = ("config.yaml", "metrics.csv", "curve.png", "panel_*.png")
_STAGES = ("scenes", "stage_*")
_RESULTS = ("last.ckpt", "weights.safetensors", "weights.json")
# settings of data that a card leaves out
_PLACES = ("labels", "bank", "scenes_folder")
# of numpy's generator
_LARGEST_SEED = 2**32 - 1

_HELP = """usage: qsmnet train experiment=NAME out=DIR [key=value ...]
       qsmnet train resume=DIR [trainer.max_steps=N]

Train a network. Experiments: smoke (under a minute), unrolled, unrolled_continued,
unrolled_tiny, unrolled_joint, residual, unet, kqsm, kqsm_he2022; or
name parts, network=NAME at least.

  out=DIR                 receives metrics.csv, curve.png, panel_*.png, last.ckpt,
                          weights.safetensors
  resume=DIR              go on exactly where DIR/last.ckpt stopped, or where its scenes and maps
                          are, with DIR's settings
  init=WEIGHTS            fine-tune released weights or a .safetensors file
  data=stored data.folder=PAIRS data.validation_folder=PAIRS
                          train on your own pairs, with any experiment
  data=anatomy data.labels=MAPS
                          train on brains of label maps (scripts/fetch_label_maps.py)
  trainer.max_steps=N trainer.devices=2 trainer.num_nodes=4 trainer.precision=bf16-mixed
  --config-dir DIR        your own experiments;  --cfg job  shows every setting;  --multirun sweeps

example: qsmnet train experiment=kqsm out=runs/kqsm trainer.max_steps=200
"""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(_HELP)
        return 0 if argv else 2
    run_app("train", train, argv)
    return 0


def train(config: DictConfig) -> None:
    """Start or resume the run that a config describes.

    Raises
    ------
    UsageError, OutputError, UnreadableError
        If out and resume are not exactly one, the folder holds a run already, or nothing to resume.
    """
    import torch

    from qsmnet.training.run import Run, is_main_process, seed_everything

    resume = config.resume is not None
    folder = _folder(config, is_main_process())
    if resume:
        config = _resumed(config, folder)
    else:
        _check_chosen(config)
    _check_simulator(config)
    _check_magnitude(config)
    # weights name their network, and only one of qsmnet is ever loaded
    check_targets(config.network)
    if config.threads is not None:
        torch.set_num_threads(whole_number(config, "threads", 1))
    seed_everything(whole_number(config, "seed", 0, _LARGEST_SEED))
    module = _module(config)
    # of a run in stages no checkpoint holds the whole network
    if config.init is not None and (not resume or config.get("stages") is not None):
        _start_from_init(module, config)
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)  # noqa: S101
    run = Run(folder, _card(settings), settings["trainer"], whole_number(config, "epoch", 1))
    stages = None if config.get("stages") is None else build("stages", config.stages)
    run.check(resume and stages is None)
    data = build("data", config.data)
    if data.materials:
        run.card["materials"] = data.materials
    with _kept(folder, config) if not resume and is_main_process() else contextlib.nullcontext():
        card = run.fit(module, data, resume) if stages is None else stages.fit(run, module, data)
    if is_main_process():
        print(f"{folder / 'weights.safetensors'}: {card['steps']} steps, {card['validation']}")


@contextlib.contextmanager
def _kept(folder: Path, config: DictConfig) -> Iterator[None]:
    """Write a run's settings; without anything to go on from at its end, leave no run behind."""
    try:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
        yield
    finally:
        if not can_resume(folder):
            for path in (path for name in _FILES for path in folder.glob(name)):
                path.unlink(missing_ok=True)
            for path in (path for name in _STAGES for path in folder.glob(name)):
                shutil.rmtree(path, ignore_errors=True)


def can_resume(folder: Path) -> bool:
    """Whether a run can go on; scenes of one in stages, and their maps, are minutes of work."""
    kept = ("last.ckpt", "stage_*/last.ckpt", "scenes/train/[0-9]*", "stage_*/train/[0-9]*")
    return any(any(folder.glob(name)) for name in kept)


def _check_chosen(config: DictConfig) -> None:
    """Refuse to begin the long default run because nothing else was said."""
    chosen = HydraConfig.get().runtime.choices.get("experiment") is not None
    if not chosen and not any(each.startswith("network=") for each in _overrides()):
        names = ", ".join(available("experiment", config_dir()))
        fix = f"write experiment=NAME, one of {names}; or network=NAME"
        raise UsageError("qsmnet train", "no experiment is named", fix)
    if config.init is not None and not str(config.init).strip():
        raise UsageError("init", "names no weights", "name released weights or a .safetensors file")


def _check_simulator(config: DictConfig) -> None:
    """Refuse simulated scans: they hold echoes, and training draws local fields."""
    from qsmnet.simulate.head.simulator import HeadSimulator

    head = f"{HeadSimulator.__module__}.{HeadSimulator.__qualname__}"
    if "training" in config.data and config.simulator.get("_target_") == head:
        problem = "head makes scans for qsmnet reconstruct; networks are trained on local fields"
        others = (name for name in available("simulator", config_dir()) if name != "head")
        raise UsageError("simulator", problem, f"use one of {', '.join(others)}")


def _check_magnitude(config: DictConfig) -> None:
    """Refuse a network with an input that would be empty in every item."""
    # data of a user's own have what they have
    if config.network.get("magnitude") and not config.data.get("magnitude", True):
        problem = "the network is to see a magnitude, and the data have none"
        raise UsageError("network.magnitude", problem, "write data.magnitude=true, too")


def _module(config: DictConfig) -> "InversionModule":
    from qsmnet.training.losses import HeLoss
    from qsmnet.training.module import InversionModule, Schedule

    if config.schedule not in get_args(Schedule):
        names = " or ".join(get_args(Schedule))
        problem = f"must be {names}, got {config.schedule}"
        raise UsageError("schedule", problem, "write schedule=cosine")
    whole_number(config, "trainer.max_steps", 1)
    module = InversionModule(
        build("network", config.network),
        build("loss", config.loss),
        build("optimizer", config.optimizer),
        steps=whole_number(config, "schedule_steps", 1),
        warmup=whole_number(config, "warmup", 0),
        ema_decay=share(config, "ema_decay"),
        seed=int(config.seed),
        schedule=config.schedule,
    )
    if isinstance(module.loss, HeLoss) and not hasattr(module.network, "spectrum"):
        problem = "HeLoss compares spectra, which this network does not predict"
        raise UsageError("loss", problem, "write loss=image, or network=kqsm_he2022")
    _check_optimizer(module)
    return module


def _check_optimizer(module: "InversionModule") -> None:
    """Make one: the optimizer itself refuses its settings, but only when training begins."""
    try:
        settings = module.make_optimizer(module.network.parameters()).defaults
    except (ValueError, TypeError) as error:
        raise UsageError("optimizer", str(error), "change its settings") from error
    for name, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"optimizer.{name}", f"must be finite, got {value}", "lower it")


def _start_from_init(module: "InversionModule", config: DictConfig) -> None:
    """Copy the weights, and keep their hash: a resumed run's card names them without the file."""
    from qsmnet.training.run import start_from
    from qsmnet.weights.store import load_weights

    start_from(module, str(config.init))
    _, card = load_weights(str(config.init))
    OmegaConf.update(config, "init_sha256", card["sha256"], force_add=True)


def _folder(config: DictConfig, is_main: bool) -> Path:
    """Folder of the run; the main process alone looks whether it is free, the others come after."""
    if (config.out is None) == (config.resume is None):
        raise UsageError("qsmnet train", "needs either out=DIR or resume=DIR", "name one folder")
    folder = folder_named(config, "out" if config.resume is None else "resume")
    if config.resume is not None:
        _check_resumable(folder)
    elif is_main:
        prepare_output_folder(folder, ())
        _check_new(folder)
    return folder


def _check_new(folder: Path) -> None:
    found = [path.name for name in (*_FILES, *_RESULTS, *_STAGES) for path in folder.glob(name)]
    if "config.yaml" in found:
        resumable = can_resume(folder)
        fix = f"resume={folder}, or name" if resumable else "remove it (no checkpoint yet), or name"
        raise OutputError(folder, "holds a run already", f"{fix} another folder")
    if found:
        raise OutputError(folder / found[0], "exists already", "name another folder")


def _check_resumable(folder: Path) -> None:
    begun, resumable = (folder / "config.yaml").is_file(), can_resume(folder)
    if not resumable:
        fix = "remove the folder and start with out=DIR" if begun else "start with out=DIR"
        raise UnreadableError(folder, "holds no last.ckpt to go on from", fix)
    if not begun:
        problem = "holds no config.yaml, which says how the run began"
        raise UnreadableError(folder, problem, "start another run with out=DIR")
    prepare_output_folder(folder, ())


def _resumed(config: DictConfig, folder: Path) -> DictConfig:
    """Read the run's own settings; only its length may be changed."""
    stored = _stored(folder / "config.yaml")
    check_targets(stored, config_dir())
    # of runs begun before it was a setting
    stored.setdefault("schedule", "cosine")
    missing = sorted(set(map(str, config)) - set(map(str, stored)))
    if missing:
        problem = f"lacks {', '.join(missing)}"
        raise UnreadableError(folder / "config.yaml", problem, "start another run with out=DIR")
    # the folder may have been moved, or named from elsewhere; the bank lies in it
    OmegaConf.update(stored, "out", str(folder))
    if any(override.startswith("trainer.max_steps=") for override in _overrides()):
        OmegaConf.update(stored, "trainer.max_steps", config.trainer.max_steps)
    return stored


def _stored(path: Path) -> DictConfig:
    try:
        stored = OmegaConf.load(path)
    except (yaml.YAMLError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        fix = "repair it, or start another run with out=DIR"
        raise UnreadableError(path, f"cannot be read: {reason}", fix) from error
    if not isinstance(stored, DictConfig):
        raise UnreadableError(path, "holds no settings", "start another run with out=DIR")
    return stored


def _overrides() -> list[str]:
    """List what the user has written, without Hydra's + and ++."""
    return [override.lstrip("+") for override in HydraConfig.get().overrides.task]


def _card(settings: dict[Any, Any]) -> dict[str, Any]:
    # nothing is known of what a user's own pairs cover, and nothing was simulated
    simulated = "training" in settings["data"]
    recipe = ("data", "loss", "optimizer", "schedule", "schedule_steps", "warmup", "ema_decay")
    parts = ("simulator",) if simulated else ()
    # label maps are told by their hashes; where things lay on this machine is no part of a recipe
    data = {key: value for key, value in settings["data"].items() if key not in _PLACES}
    kept = {key: settings[key] for key in (*parts, *recipe, "trainer", "seed")}
    stages = settings.get("stages") and {
        key: value for key, value in settings["stages"].items() if key not in _PLACES
    }
    card = {
        "network": settings["network"],
        "recipe": {**kept, "data": data, "stages": stages},
        "commit": _commit(),
        "hardware": f"{platform.machine()}, {_processor()}",
    }
    if simulated:
        card["trained_for"] = _range(settings["data"])
    if settings["init"] is not None:
        card["init"] = {"weights": settings["init"], "sha256": settings.get("init_sha256")}
    return card


def _range(data: dict[str, Any]) -> dict[str, Any]:
    """Return what simulated pairs cover; no setting tells a bound of their susceptibility."""
    from qsmnet.inversion.trained_range import in_plane_ratio, slice_ratios

    acquisition = build("simulator.acquisition", data["training"]["acquisition"])
    sizes = acquisition.sizes(data["seed"])
    if data.get("turns") and _are_cubes(data):
        sizes = [turned for size in sizes for turned in permutations(size)]
    edges = [edge for size in sizes for edge in size]
    ratios = [ratio for size in sizes for ratio in slice_ratios(size)]
    return {
        "voxel_size_mm": [min(edges), max(edges)],
        "slice_ratio": [round(min(ratios), 4), round(max(ratios), 4)],
        "in_plane_ratio": round(max(map(in_plane_ratio, sizes)), 4),
        "tilt_degrees": acquisition.largest_tilt,
        "noise_ppm": _noise_range(acquisition),
    }


def _are_cubes(data: dict[str, Any]) -> bool:
    """Whether every item is one, so that `qsmnet.training.augment.turned` turns it any way."""
    simulator = data["training"]
    return not simulator.get("same_extent") and len(set(simulator["shape"])) == 1


def _noise_range(acquisition: "Acquisition") -> list[float]:
    """Range of a scan's standard deviation in ppm, outside of signal voids."""
    from qsmnet.simulate.acquisition import STRONGEST_NOISE

    low, high = (float(level) for level in acquisition.noise)
    free, strong = acquisition.noise_free, acquisition.strongly_noisy
    # what is neither noise-free nor strongly noisy lies between low and high
    levels = [0.0] if free > 0 else []
    levels += [low, high] if free + strong < 1 else []
    levels += [high, STRONGEST_NOISE * high] if strong > 0 and free < 1 else []
    return [min(levels), max(levels)]


def _commit() -> str:
    """Commit of the source tree, where the package runs from one."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{torch.get_num_threads()} CPU threads"
