"""The training step around any network of `qsmnet.networks`."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from qsmnet.errors import NumericalError
from qsmnet.training.batch import Batch
from qsmnet.training.deep_loss import Deep, Switched
from qsmnet.training.ema import MovingAverage
from qsmnet.training.losses import HeLoss, Loss, demeaned

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Literal["cosine", "step"]

# of the step schedule; He et al. 2022: times 0.9 after every 50 of 500 epochs
_FALLS, _FALL = 10, 0.9


class InversionModule(L.LightningModule):
    """Minimise a loss between predicted and true susceptibility.

    Parameters
    ----------
    network
        From `qsmnet.networks`.
    loss
        `qsmnet.training.losses.Loss`, or one of `qsmnet.training.deep_loss`.
    optimizer
        Makes an optimizer from parameters.
    steps, warmup
        Length of the run and of the linear rise, after which the learning rate falls. The schedule
        counts steps, never time.
    ema_decay
        Of the moving average of the weights; 0 validates and releases the weights of the last step.
    seed
        Of the run; printed when the loss is not finite.
    schedule
        How the learning rate falls: ``cosine`` to a hundredth, or ``step``, times 0.9 after every
        tenth of the run.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss | HeLoss | Deep | Switched,
        optimizer: OptimizerFactory,
        steps: int,
        warmup: int = 100,
        ema_decay: float = 0.999,
        seed: int = 0,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.loss, self.make_optimizer = loss, optimizer
        self.steps, self.warmup, self.seed = steps, warmup, seed
        self.schedule: Schedule = schedule
        self.average = MovingAverage(network, ema_decay)
        self._earlier, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run, with that before it was resumed."""
        return self._earlier + time.monotonic() - self._began

    def forward(self, batch: Batch) -> Tensor:
        """Predicted susceptibility, zero outside the mask."""
        chi: Tensor = self.network(*batch.inputs(self.network))
        return chi * batch.mask

    def current_loss(self) -> Loss | HeLoss | Deep:
        """Loss of the trainer's step: `Switched` has two."""
        if isinstance(self.loss, Switched):
            return self.loss.at(self.global_step, self.steps)
        return self.loss

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """One step's loss.

        Raises
        ------
        NumericalError
            If it is not finite, with the seed and the items of the step.
        """
        loss = self.current_loss()
        total, terms = loss(loss.predict(self.network, batch), batch)
        value = float(total.detach())
        if not math.isfinite(value):
            raise NumericalError(
                "training",
                f"the loss is {value} at step {self.global_step} (seed {self.seed}, "
                f"items {list(batch.items)})",
                "lower optimizer.lr, or draw these items again to see what is wrong with them",
            )
        size = len(batch.items)
        self.log("train/loss", total.detach(), batch_size=size, prog_bar=True)
        self.log_dict({f"train/{k}": v.detach() for k, v in terms.items()}, batch_size=size)
        return total

    def on_train_start(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_batch_start(self, *_: object) -> None:
        """Let logs name the same steps in a resumed run: Lightning's own count goes one too far."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def on_train_batch_end(self, *_: object) -> None:
        """Average the weights after the optimizer's step."""
        self.average.update(self.network)

    def on_validation_epoch_start(self) -> None:
        """Validate the averaged weights; the live ones are put back afterwards."""
        self._live = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        if self.average.steps:
            self.network.load_state_dict(self.average.weights)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and NRMSE in percent."""
        loss = self.current_loss()
        total, _terms = loss(loss.predict(self.network, batch), batch)
        chi = self(batch)
        nrmse = relative_error(chi, batch.chi, batch.mask).mean()
        size = len(batch.items)
        self.log("val/loss", total, batch_size=size, sync_dist=True)
        self.log("val/nrmse", nrmse, batch_size=size, prog_bar=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Put the live weights back."""
        self.network.load_state_dict(self._live)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make the optimizer and the learning rate by step."""
        optimizer = self.make_optimizer(self.network.parameters())
        # of a plain function a checkpoint keeps nothing; of a method it would keep its attributes
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: self.learning_rate_factor(step),  # noqa: PLW0108
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def learning_rate_factor(self, step: int) -> float:
        """Linear rise, then the schedule's fall."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        length = max(1, self.steps - self.warmup)
        done = min(step - self.warmup, length)
        if self.schedule == "step":
            # whole numbers: a tenth is no binary fraction
            return _FALL ** (_FALLS * done // length)
        progress = torch.tensor(torch.pi * (done / length))
        return 0.01 + 0.99 * 0.5 * (1.0 + float(torch.cos(progress)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the averaged weights, the CPU's random state and the time spent, as plain data."""
        checkpoint["seconds"] = self.seconds
        checkpoint["average"] = self.average.state()
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        average = checkpoint["average"]
        self._earlier = float(checkpoint.get("seconds", 0.0))
        self.average.load(int(average["steps"]), average["weights"])
        torch.set_rng_state(checkpoint["random_state"])


def relative_error(chi: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """NRMSE in percent of each item: demeaned in the mask, over the norm of the truth."""
    axes = (-4, -3, -2, -1)
    reference = demeaned(truth, mask)
    error = demeaned(chi.float(), mask) - reference
    return (
        100 * error.square().sum(axes).sqrt() / reference.square().sum(axes).sqrt().clamp_min(1e-12)
    )
