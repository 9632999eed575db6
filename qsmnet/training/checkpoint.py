"""Checkpoints of a run: complete or absent, plain data, and refused when they are damaged."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from qsmnet.errors import UnreadableError
from qsmnet.io.files import write_bytes


class WholeCheckpoints(TorchCheckpointIO):
    """Write under another name and rename; Lightning's own copies into place, and can be cut."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401, ARG002  Lightning's signature
    ) -> None:
        """Write ``checkpoint`` to ``path``, in place of the last one.

        Raises
        ------
        OutputError, ResourceError
            If it cannot be written; the last one is still there.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(path, content.getvalue(), overwrite=True)


def every_epoch(folder: Path) -> ModelCheckpoint:
    """Keep ``last.ckpt`` in ``folder`` up to date."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        save_top_k=1,
        monitor=None,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def step_of(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was written.

    Raises
    ------
    UnreadableError
        If the file is truncated, or holds anything but plain data.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return int(state["global_step"])
    except Exception as error:  # what a damaged file raises has no common base
        problem = "is damaged, or no checkpoint of a run"
        raise UnreadableError(checkpoint, problem, "start another run with out=DIR") from error
