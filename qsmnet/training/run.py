"""One training run, from objects to weights."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

import qsmnet
from qsmnet.errors import UsageError, WeightsError
from qsmnet.training.data import PairsModule
from qsmnet.training.log import MetricsLog
from qsmnet.training.module import InversionModule
from qsmnet.training.panel import Pictures
from qsmnet.weights.store import Card, load_weights, save_weights

#: Lightning's warnings of what is meant so: the bank lies in the run's folder and needs few
#: workers, a run may be moved; and one of Lightning's own use of torch.
_NO_NEWS = (
    "Checkpoint directory .* exists and is not empty",
    "The dirpath has changed",
    ".*does not have many workers",
    ".*LeafSpec",
)


@dataclass(frozen=True)
class Run:
    """Folder and settings of a run.

    Parameters
    ----------
    folder
        Receives ``metrics.csv``, pictures, ``last.ckpt``, and ``weights.safetensors`` with its
        card.
    card
        What goes into the card: resolved network config, training range, seeds, command.
    trainer
        Arguments of Lightning's Trainer: ``max_steps``, ``precision``, ``devices``, ...
    epoch
        Steps between validations, pictures and checkpoints.
    """

    folder: Path
    card: Card
    trainer: Mapping[str, Any]
    epoch: int

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint: plain data, loads with ``weights_only=True``."""
        return self.folder / "last.ckpt"

    def fit(self, module: InversionModule, data: PairsModule, resume: bool = False) -> Card:
        """Train, then write the averaged weights.

        ``resume`` goes on exactly where the checkpoint stopped; weights that an earlier, shorter
        part of the run has written are replaced.

        Raises
        ------
        UsageError
            If the trainer's arguments are wrong.
        NumericalError
            If the loss is not finite.
        """
        metrics = MetricsLog(self.folder / "metrics.csv")
        if resume:
            metrics.rewind(_step_of(self.checkpoint))
        checkpoint = str(self.checkpoint) if resume else None
        with warnings.catch_warnings():
            for message in _NO_NEWS:
                warnings.filterwarnings("ignore", message)
            trainer = self._trainer(metrics)
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        scores = trainer.callback_metrics.items()
        card = {
            **self.card,
            "qsmnet": qsmnet.__version__,
            "steps": trainer.global_step,
            "validation": {k: round(float(v), 4) for k, v in scores if k.startswith("val/")},
        }
        if not trainer.is_global_zero:
            return card
        path = self.folder / "weights.safetensors"
        return save_weights(path, module.average.weights, card, overwrite=resume)

    def _trainer(self, metrics: MetricsLog) -> L.Trainer:
        # what it says of hardware and of other products is no news of the run
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        try:
            return L.Trainer(
                default_root_dir=self.folder,
                logger=metrics,
                callbacks=[_checkpoints(self.folder), Pictures(self.folder)],
                limit_train_batches=self.epoch,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
                log_every_n_steps=min(10, self.epoch),
                enable_model_summary=False,
                **self.trainer,
            )
        except (ValueError, TypeError, MisconfigurationException) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                "trainer", reason, "see Lightning's Trainer for its arguments"
            ) from error


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python: the initial weights, and dropout."""
    L.seed_everything(seed, workers=True, verbose=False)


def is_main_process() -> bool:
    """Whether this process, of those of one run, is the one that writes."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def start_from(module: InversionModule, weights: str) -> None:
    """Fine-tune: copy weights of the same network.

    Raises
    ------
    WeightsError
        If they are of another network.
    """
    network, card = load_weights(weights)
    try:
        module.network.load_state_dict(network.state_dict())
    except RuntimeError as error:
        made_for = card["network"]["_target_"]
        raise WeightsError(
            weights,
            f"made for {made_for}, which differs from this run's network",
            "choose the same network",
        ) from error
    module.average.load(0, network.state_dict())


def _checkpoints(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        save_top_k=1,
        monitor=None,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _step_of(checkpoint: Path) -> int:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return int(state["global_step"])
