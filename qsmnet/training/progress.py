"""The line that a run shows while it goes on."""

from lightning.pytorch.callbacks import RichProgressBar


class StepsBar(RichProgressBar):
    """Lightning's bar, which tells steps: a run has no number of epochs, and it would show -2."""

    def _get_train_description(self, current_epoch: int) -> str:
        trainer = self.trainer
        last = int((current_epoch + 1) * trainer.num_training_batches)
        return f"to step {min(last, trainer.max_steps)} of {trainer.max_steps}"
