"""``qsmnet train experiment=NAME out=DIR``: a network from simulated or stored pairs."""

import math
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from qsmnet.cli.hydra_app import check_targets, run_app, whole_number
from qsmnet.errors import OutputError, UnreadableError, UsageError

if TYPE_CHECKING:
    from qsmnet.simulate.acquisition import Acquisition
    from qsmnet.training.module import InversionModule

# an acquisition's strong noise, as a factor of its largest
_STRONGEST = 3.0

_HELP = """usage: qsmnet train experiment=NAME out=DIR [key=value ...]
       qsmnet train resume=DIR [trainer.max_steps=N]

Train a network. Experiments: smoke (under a minute), unet, kqsm, kqsm_he2022.

  out=DIR                 receives metrics.csv, curve.png, panel_*.png, last.ckpt,
                          weights.safetensors
  resume=DIR              go on exactly where DIR/last.ckpt stopped, with DIR's settings
  init=WEIGHTS            fine-tune released weights or a .safetensors file
  data=stored data.folder=PAIRS data.validation_folder=PAIRS
                          train on your own pairs, with any experiment
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
    if config.threads is not None:
        torch.set_num_threads(int(config.threads))
    seed_everything(whole_number(config, "seed", 0))
    module = _module(config)
    if config.init is not None and not resume:
        _start_from_init(module, config)
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)  # noqa: S101
    run = Run(folder, _card(settings), settings["trainer"], whole_number(config, "epoch", 1))
    data = instantiate(config.data, _convert_="all")
    if not resume and is_main_process():
        # only now: what cannot be built leaves no run behind
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "config.yaml", resolve=False)
    card = run.fit(module, data, resume)
    if is_main_process():
        print(f"{folder / 'weights.safetensors'}: {card['steps']} steps, {card['validation']}")


def _module(config: DictConfig) -> "InversionModule":
    from qsmnet.training.module import InversionModule, Schedule

    if config.schedule not in get_args(Schedule):
        names = " or ".join(get_args(Schedule))
        problem = f"must be {names}, got {config.schedule}"
        raise UsageError("schedule", problem, "write schedule=cosine")
    return InversionModule(
        instantiate(config.network, _convert_="all"),
        instantiate(config.loss),
        instantiate(config.optimizer),
        steps=whole_number(config, "schedule_steps", 1),
        warmup=whole_number(config, "warmup", 0),
        ema_decay=float(config.ema_decay),
        seed=int(config.seed),
        schedule=config.schedule,
    )


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
    folder = Path(config.out if config.resume is None else config.resume)
    begun, resumable = (folder / "config.yaml").exists(), (folder / "last.ckpt").exists()
    if config.resume is None and begun and is_main:
        fix = f"resume={folder}, or name" if resumable else "remove it (no checkpoint yet), or name"
        raise OutputError(folder, "holds a run already", f"{fix} another folder")
    if config.resume is not None and not resumable:
        fix = "remove the folder and start with out=DIR" if begun else "start with out=DIR"
        raise UnreadableError(folder, "holds no last.ckpt to go on from", fix)
    return folder


def _resumed(config: DictConfig, folder: Path) -> DictConfig:
    """Read the run's own settings; only its length may be changed."""
    stored = OmegaConf.load(folder / "config.yaml")
    assert isinstance(stored, DictConfig)  # noqa: S101
    check_targets(stored)
    # of runs begun before it was a setting
    stored.setdefault("schedule", "cosine")
    # the folder may have been moved, or named from elsewhere; the bank lies in it
    OmegaConf.update(stored, "out", str(folder))
    if any(override.startswith("trainer.max_steps=") for override in _overrides()):
        OmegaConf.update(stored, "trainer.max_steps", config.trainer.max_steps)
    return stored


def _overrides() -> list[str]:
    """List what the user has written, without Hydra's + and ++."""
    return [override.lstrip("+") for override in HydraConfig.get().overrides.task]


def _card(settings: dict[Any, Any]) -> dict[str, Any]:
    # nothing is known of what a user's own pairs cover, and nothing was simulated
    simulated = "training" in settings["data"]
    recipe = ("data", "loss", "optimizer", "schedule", "schedule_steps", "warmup", "ema_decay")
    parts = ("simulator",) if simulated else ()
    card = {
        "network": settings["network"],
        "recipe": {key: settings[key] for key in (*parts, *recipe, "trainer", "seed")},
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
    from qsmnet.simulate.acquisition import voxel_size_list

    acquisition = instantiate(data["training"]["acquisition"], _convert_="all")
    sizes = (
        voxel_size_list(data["seed"], acquisition.voxel_sizes, acquisition.isotropic)
        if acquisition.voxel_size is None
        else [acquisition.voxel_size]
    )
    edges = [float(edge) for size in sizes for edge in size]
    return {
        "voxel_size_mm": [min(edges), max(edges)],
        "tilt_degrees": _largest_tilt(acquisition),
        "noise_ppm": _noise_range(acquisition),
    }


def _largest_tilt(acquisition: "Acquisition") -> float:
    if acquisition.b0_dir is not None:
        cosine = abs(acquisition.b0_dir[2]) / math.hypot(*acquisition.b0_dir)
        return round(math.degrees(math.acos(min(1.0, cosine))), 2)
    return 0.0 if acquisition.axial >= 1 else acquisition.tilt


def _noise_range(acquisition: "Acquisition") -> list[float]:
    """Range of a scan's standard deviation in ppm, outside of signal voids."""
    low, high = (float(level) for level in acquisition.noise)
    free, strong = acquisition.noise_free, acquisition.strongly_noisy
    # what is neither noise-free nor strongly noisy lies between low and high
    levels = [0.0] if free > 0 else []
    levels += [low, high] if free + strong < 1 else []
    levels += [high, _STRONGEST * high] if strong > 0 and free < 1 else []
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
