"""Pictures of a run."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from qsmnet.evaluate.spectrum import error_spectrum
from qsmnet.geometry import Geometry
from qsmnet.training.batch import Item, collate
from qsmnet.training.log import MetricsLog
from qsmnet.training.panel import draw_curve, draw_panel


def single(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    chi = 0.05 * torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.8
    geometry = Geometry((1, 1, 1), (0, 0, 1))
    return collate([Item(chi, mask, 0 * chi, chi * mask, mask, geometry, seed)])


@pytest.fixture
def closing():
    yield
    plt.close("all")


def test_panel_has_a_row_an_item_whatever_their_shapes(closing):
    batches = [single((10, 12, 8)), single((8, 8, 14), 1)]
    figure = draw_panel([0.5 * b.chi for b in batches], batches)
    axes = np.array(figure.axes).reshape(2, 5)
    assert [a.get_title() for a in axes[0, :4]] == [
        "field",
        "truth",
        "prediction, 50.0 %",
        "difference",
    ]
    assert axes[0, 1].images[0].get_clim() == (-0.1, 0.1)
    assert axes[1, 1].images[0].get_array().shape == (8, 8)


def test_curve_of_the_panel_is_the_error_over_the_kernel(closing):
    batch = single((10, 12, 8))
    chi = batch.chi + 0.01 * torch.randn(batch.chi.shape) * batch.mask
    line = draw_panel([chi], [batch]).axes[4].lines[0]
    expected = error_spectrum(chi[0, 0], batch.chi[0, 0], batch.mask[0, 0] > 0, batch.geometry[0])
    assert line.get_xdata() == pytest.approx(expected.centres)
    assert line.get_ydata() == pytest.approx(expected.error, nan_ok=True)


def test_loss_that_is_a_logarithm_may_be_negative(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    for step, loss in ((9, 0.3), (19, -0.4)):
        log.log_metrics({"train/loss": loss}, step)
    draw_curve(log.path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_loss_curve_is_drawn_of_what_there_is(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1.0}, 9)
    draw_curve(log.path, tmp_path / "early.png")
    log.log_metrics({"val/loss": 0.9, "val/nrmse": 80.0}, 9)
    draw_curve(log.path, tmp_path / "later.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("early.png", "later.png")]
    assert min(sizes) > 1000
    assert sizes[0] != sizes[1]
    assert not plt.get_fignums()
