"""Pictures: what is in which panel, at which window and proportions."""

import numpy as np
import pytest
import torch

from qsmnet.evaluate.compare import Result
from qsmnet.evaluate.figures import (
    comparison_figure,
    mask_centre,
    spectrum_figure,
    spectrum_panels,
)
from qsmnet.evaluate.spectrum import ErrorSpectrum
from qsmnet.geometry import Geometry

GEOMETRY = Geometry((1.0, 1.0, 2.0), (0.0, 0.0, 1.0))
TRUTH = torch.randn((10, 12, 8), generator=torch.Generator().manual_seed(0))
RESULTS = [
    Result("good", TRUTH + 0.01, 1.0, 1.0, {"nrmse": 12.3, "xsim": 0.456}),
    Result("bad", None, 0.0, 0.0, error="no luck"),
]
CURVE = ErrorSpectrum((0.0, 1 / 3, 2 / 3), (0.9, float("nan")))


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_maps_and_differences_have_fixed_windows():
    figure = comparison_figure(RESULTS, TRUTH, GEOMETRY, (5, 6, 4), "title")
    shown = images(figure)
    assert len(shown) == 6  # truth and one map in two planes, one difference in two planes
    assert {image.get_clim() for image in shown[:4]} == {(-0.1, 0.1)}
    assert {image.get_clim() for image in shown[4:]} == {(-0.05, 0.05)}
    assert len(figure.axes) == 4 * 3 + 2  # two colour bars


def test_planes_go_through_the_centre_at_true_proportions():
    shown = images(comparison_figure(RESULTS, TRUTH, GEOMETRY, (5, 6, 4)))
    np.testing.assert_allclose(shown[0].get_array(), TRUTH[:, :, 4].T)
    np.testing.assert_allclose(shown[2].get_array(), TRUTH[5].T)
    np.testing.assert_allclose(shown[4].get_array(), 0.01, atol=1e-6)
    assert shown[0].axes.get_aspect() == 1
    assert shown[2].axes.get_aspect() == 2


def test_a_failed_method_says_so():
    figure = comparison_figure(RESULTS, TRUTH, GEOMETRY, (5, 6, 4))
    assert figure.axes[2].get_title() == "bad"
    assert figure.axes[2].texts[0].get_text() == "failed"
    assert "12.3" in figure.axes[1].get_title()


def test_without_truth_only_maps(tmp_path):
    figure = comparison_figure(RESULTS, None, GEOMETRY, (5, 6, 4))
    assert len(images(figure)) == 2
    figure.savefig(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_curves_are_labelled_and_drawn():
    figure = spectrum_figure({"tkd": CURVE}, "title")
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["tkd"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1 / 6, 1 / 2])


@pytest.mark.parametrize("n", [0, 1, 4])
def test_panels_for_every_condition(n, tmp_path):
    figure = spectrum_panels({str(i): {"tkd": CURVE} for i in range(n)})
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == [*map(str, range(n))]
    figure.savefig(tmp_path / "panels.png")


def test_centre_of_a_mask():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[2:5, 3:6, 7] = True
    assert mask_centre(mask) == (3, 4, 7)
