"""Pictures of a run: loss curve, fixed validation panel, error over |D|."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from qsmnet.evaluate.spectrum import error_spectrum
from qsmnet.io.files import atomic_write
from qsmnet.training.batch import Batch, collate
from qsmnet.training.data import PairsModule
from qsmnet.training.log import read_metrics
from qsmnet.training.losses import demeaned
from qsmnet.training.module import InversionModule, relative_error

_WINDOW = 0.1


class Pictures(L.Callback):
    """After every validation: ``curve.png`` and ``panel_<step>.png``.

    Parameters
    ----------
    folder
        Of the run.
    items
        Validation items on the panel.
    """

    def __init__(self, folder: Path, items: int = 2) -> None:
        self.folder, self.items = folder, items

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw on the main process, once training has begun."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PairsModule)  # noqa: S101
        assert isinstance(pl_module, InversionModule)  # noqa: S101
        n = min(self.items, len(data.validation))  # type: ignore[arg-type]
        batches = [collate([data.validation[i]]) for i in range(n)]
        figure = draw_panel([predict(pl_module, batch) for batch in batches], batches)
        _save(figure, self.folder / f"panel_{trainer.global_step:06d}.png", dpi=70)
        metrics = self.folder / "metrics.csv"
        if metrics.exists():
            draw_curve(metrics, self.folder / "curve.png")


@torch.no_grad()
def predict(module: InversionModule, batch: Batch) -> Tensor:
    """Prediction of the averaged weights, back on the CPU."""
    live = {k: v.clone() for k, v in module.network.state_dict().items()}
    if module.average.steps:
        module.network.load_state_dict(module.average.weights)
    chi: Tensor = module(batch.to(module.device)).float().cpu()
    module.network.load_state_dict(live)
    return chi


def draw_panel(maps: Sequence[Tensor], batches: Sequence[Batch]) -> Figure:
    """Draw an item a row: field, truth, prediction, difference (+-0.1 ppm), error over |D|.

    Parameters
    ----------
    maps
        Predictions, ``(1, 1, x, y, z)`` each, of batches of one item.
    batches
        What they were predicted from; items may differ in shape.
    """
    n = len(maps)
    figure, axes = plt.subplots(n, 5, figsize=(15, 3.2 * n), squeeze=False, layout="constrained")
    for row, chi, batch in zip(axes.tolist(), maps, batches, strict=True):
        _draw_row(row, chi, batch)
    return figure


def _draw_row(row: Sequence[Axes], chi: Tensor, batch: Batch) -> None:
    truth, guess = demeaned(batch.chi, batch.mask)[0, 0], demeaned(chi, batch.mask)[0, 0]
    error = float(relative_error(chi, batch.chi, batch.mask)[0])
    middle = chi.shape[-1] // 2
    images = (batch.field[0, 0], truth, guess, guess - truth)
    titles = ("field", "truth", f"prediction, {error:.1f} %", "difference")
    for axis, image, title in zip(row, images, titles, strict=False):
        plane = image[:, :, middle].T.numpy()
        axis.imshow(plane, cmap="gray", vmin=-_WINDOW, vmax=_WINDOW, origin="lower")
        axis.set_title(title)
        axis.set_axis_off()
    mask = batch.mask[0, 0] > 0
    spectrum = error_spectrum(chi[0, 0], batch.chi[0, 0], mask, batch.geometry[0])
    row[4].plot(spectrum.centres, spectrum.error)
    row[4].set(xlabel="|D(k)|", ylabel="k-space error / truth", ylim=(0, 1.5))


def draw_curve(metrics: Path, picture: Path) -> None:
    """Draw training and validation loss, and validation NRMSE, over steps."""
    columns: dict[str, list[tuple[int, float]]] = {
        "train/loss": [],
        "val/loss": [],
        "val/nrmse": [],
    }
    for step, name, value in read_metrics(metrics):
        if name in columns:
            columns[name].append((step, value))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for name, axis in (("train/loss", left), ("val/loss", left), ("val/nrmse", right)):
        if columns[name]:
            steps, values = np.array(columns[name]).T
            axis.plot(steps, values, label=name, lw=1)
    losses = [value for name in ("train/loss", "val/loss") for _, value in columns[name]]
    # a loss that is a logarithm itself may be negative
    left.set(xlabel="step", yscale="log" if min(losses, default=1.0) > 0 else "linear")
    right.set(xlabel="step", ylabel="NRMSE (%)")
    left.legend()
    _save(figure, picture, dpi=80)


def _save(figure: Figure, path: Path, dpi: int) -> None:
    with atomic_write(path, overwrite=True) as part:
        figure.savefig(part, dpi=dpi)
    plt.close(figure)
