"""``qsmnet train experiment=NAME out=DIR``: a network from simulated or stored pairs."""

import logging
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from qsmnet.cli.hydra_app import check_targets, run_app
from qsmnet.errors import OutputError, UnreadableError, UsageError

log = logging.getLogger(__name__)

_HELP = """usage: qsmnet train experiment=NAME out=DIR [key=value ...]
       qsmnet train resume=DIR [trainer.max_steps=N]

Train a network. Experiments: smoke (under a minute), unet, kqsm, kqsm_he2022.

  out=DIR                 receives metrics.csv, curve.png, panel_*.png, last.ckpt,
                          weights.safetensors
  resume=DIR              go on exactly where DIR/last.ckpt stopped, with DIR's settings
  init=WEIGHTS            fine-tune released weights or a .safetensors file
  data=stored data.folder=PAIRS data.validation_folder=PAIRS
                          train on your own pairs
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

    resume = config.resume is not None
    folder = _folder(config)
    if resume:
        config = _resumed(config, folder)
    if config.threads is not None:
        torch.set_num_threads(int(config.threads))
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "config.yaml", resolve=False)
    _fit(config, folder, resume)


def _fit(config: DictConfig, folder: Path, resume: bool) -> None:
    import lightning as L

    from qsmnet.training.module import InversionModule
    from qsmnet.training.run import Run, start_from

    L.seed_everything(int(config.seed), workers=True, verbose=False)
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)  # noqa: S101
    module = InversionModule(
        instantiate(config.network, _convert_="all"),
        instantiate(config.loss),
        instantiate(config.optimizer),
        steps=int(config.schedule_steps),
        warmup=int(config.warmup),
        ema_decay=float(config.ema_decay),
        seed=int(config.seed),
    )
    if config.init is not None and not resume:
        start_from(module, str(config.init))
    data = instantiate(config.data, _convert_="all")
    run = Run(folder, _card(settings), settings["trainer"], int(config.epoch))
    card = run.fit(module, data, resume)
    print(f"{folder / 'weights.safetensors'}: {card['steps']} steps, {card['validation']}")


def _folder(config: DictConfig) -> Path:
    if (config.out is None) == (config.resume is None):
        raise UsageError("qsmnet train", "needs either out=DIR or resume=DIR", "name one folder")
    folder = Path(config.out if config.resume is None else config.resume)
    if config.resume is None and (folder / "config.yaml").exists():
        raise OutputError(folder, "holds a run already", f"resume={folder}, or name another folder")
    if config.resume is not None and not (folder / "last.ckpt").exists():
        raise UnreadableError(folder, "holds no last.ckpt to go on from", "start with out=DIR")
    return folder


def _resumed(config: DictConfig, folder: Path) -> DictConfig:
    """Read the run's own settings; only its length may be changed."""
    stored = OmegaConf.load(folder / "config.yaml")
    assert isinstance(stored, DictConfig)  # noqa: S101
    check_targets(stored)
    # the folder may have been moved, or named from elsewhere; the bank lies in it
    OmegaConf.update(stored, "out", str(folder))
    longer = config.trainer.max_steps
    if _given("trainer.max_steps"):
        OmegaConf.update(stored, "trainer.max_steps", longer)
    return stored


def _given(key: str) -> bool:
    import sys

    return any(argument.startswith(f"{key}=") for argument in sys.argv)


def _card(settings: dict[Any, Any]) -> dict[str, Any]:
    acquisition = settings["simulator"]["acquisition"]
    fixed = acquisition.get("voxel_size")
    return {
        "network": settings["network"],
        "trained_for": {
            "voxel_size_mm": [min(fixed), max(fixed)] if fixed else [0.5, 3.0],
            "tilt_degrees": acquisition.get("tilt", 180.0),
            "noise_ppm": acquisition.get("noise", [1e-4, 1e-2]),
            "chi_ppm": [-3.5, 2.0],
        },
        "recipe": {
            k: settings[k] for k in ("simulator", "data", "loss", "optimizer", "trainer", "seed")
        },
        "commit": _commit(),
        "hardware": f"{platform.machine()}, {_processor()}",
    }


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
