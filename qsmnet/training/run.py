"""One training run, from objects to weights."""

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

import qsmnet
from qsmnet.errors import QsmnetError, UsageError, WeightsError
from qsmnet.io.files import write_error
from qsmnet.training.checkpoint import WholeCheckpoints, every_epoch, step_of
from qsmnet.training.data import PairsModule
from qsmnet.training.log import MetricsLog
from qsmnet.training.module import InversionModule
from qsmnet.training.panel import Pictures
from qsmnet.training.progress import StepsBar
from qsmnet.weights.store import Card, load_weights, save_weights

#: Lightning's warnings of what is meant so: the bank lies in the run's folder and needs few
#: workers, a run may be moved; and one of Lightning's own use of torch.
_NO_NEWS = (
    "Checkpoint directory .* exists and is not empty",
    "The dirpath has changed",
    ".*does not have many workers",
    ".*LeafSpec",
)


class InterruptedRunError(QsmnetError):
    """Ctrl-C in the midst of a run."""

    exit_code = 130


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
    pictures
        Whether there are any.
    """

    folder: Path
    card: Card
    trainer: Mapping[str, Any]
    epoch: int
    pictures: bool = True

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint: plain data, loads with ``weights_only=True``."""
        return self.folder / "last.ckpt"

    @property
    def processes(self) -> int:
        """How many take part in it."""
        return int(self._trainer.world_size)

    def check(self, resume: bool = False) -> None:
        """Look whether the run could begin, before anything is computed or written.

        Raises
        ------
        UsageError
            If the trainer's arguments are wrong.
        UnreadableError
            If it is to go on, and the checkpoint is damaged.
        """
        assert self._trainer is not None  # noqa: S101
        if resume:
            step_of(self.checkpoint)

    def fit(self, module: InversionModule, data: PairsModule, resume: bool = False) -> Card:
        """Train, then write the averaged weights.

        ``resume`` goes on exactly where the checkpoint stopped; weights that an earlier, shorter
        part of the run has written are replaced.

        Raises
        ------
        UsageError, UnreadableError
            As `check`.
        NumericalError
            If the loss is not finite.
        OutputError, ResourceError
            If a file cannot be written, or the disk is full.
        InterruptedRunError
            By Ctrl-C.
        """
        trainer = self._trainer
        if resume:
            self._metrics.rewind(step_of(self.checkpoint))
        with _quiet(), self._failures():
            path = str(self.checkpoint) if resume else None
            trainer.fit(module, data, ckpt_path=path, weights_only=True)
        scores = trainer.callback_metrics.items()
        card = {
            **self.card,
            "qsmnet": qsmnet.__version__,
            "steps": trainer.global_step,
            "hours": round(module.seconds / 3600, 4),
            "validation": {k: round(float(v), 4) for k, v in scores if k.startswith("val/")},
        }
        if not trainer.is_global_zero:
            return card
        weights = self.folder / "weights.safetensors"
        return save_weights(weights, module.average.weights, card, overwrite=resume)

    @cached_property
    def _metrics(self) -> MetricsLog:
        return MetricsLog(self.folder / "metrics.csv")

    @cached_property
    def _trainer(self) -> L.Trainer:
        # what it says of hardware, of signals and of other products is no news of the run
        for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
            logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
        shown: list[L.Callback] = [Pictures(self.folder)] if self.pictures else []
        shown += [StepsBar()] if (self.trainer or {}).get("enable_progress_bar", True) else []
        try:
            with _quiet():
                return L.Trainer(
                    default_root_dir=self.folder,
                    logger=self._metrics,
                    callbacks=[every_epoch(self.folder), *shown],
                    plugins=[WholeCheckpoints()],
                    limit_train_batches=self.epoch,
                    use_distributed_sampler=False,
                    num_sanity_val_steps=0,
                    log_every_n_steps=min(10, self.epoch),
                    enable_model_summary=False,
                    **self.trainer,
                )
        except (ValueError, TypeError, MisconfigurationException) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UsageError(
                "trainer", reason, "see Lightning's Trainer for its arguments"
            ) from error

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what Lightning makes of Ctrl-C, and a disk that fails, into errors of a run."""
        before = signal.getsignal(signal.SIGINT)
        try:
            yield
        except SIGTERMException as stop:
            # where SIGTERM's own exception was lost, Lightning ends the run a step later, with 0
            raise SystemExit(128 + signal.SIGTERM) from stop
        except SystemExit as stop:
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, before)
            again = f"qsmnet train resume={self.folder} goes on from its last checkpoint"
            fix = again if self.checkpoint.exists() else "start it again: it had no checkpoint yet"
            raise InterruptedRunError(self.folder, "interrupted", fix) from stop
        except OSError as error:
            if error.errno is None:
                raise
            raise write_error(Path(error.filename or self.folder), error) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in _NO_NEWS:
            warnings.filterwarnings("ignore", message)
        yield


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
