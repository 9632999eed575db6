"""Pictures of a comparison: maps and differences at fixed windows, and error over the kernel."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from qsmnet.evaluate.compare import Result
from qsmnet.evaluate.spectrum import ErrorSpectrum
from qsmnet.geometry import Geometry

#: ppm, the same in every picture so that pictures can be compared.
WINDOW = 0.1
DIFFERENCE_WINDOW = 0.05

# axial and sagittal: streaks from a lost cone show in planes that hold B0
_PLANES = (2, 0)
_PANEL = 2.3
# a diverging method must not flatten the others
_CEILING = 2.0


def comparison_figure(
    results: Sequence[Result],
    truth: Float[Tensor, "x y z"] | None,
    geometry: Geometry,
    centre: tuple[int, int, int],
    title: str = "",
) -> Figure:
    """Truth and every method, axial and sagittal through ``centre``, with differences below.

    Maps are shown from -0.1 to 0.1 ppm, differences to the truth from -0.05 to 0.05 ppm, one colour
    bar each; pixels have the voxels' true proportions. A method that failed keeps an empty panel.

    Parameters
    ----------
    results
        Rows of `qsmnet.evaluate.compare.compare`.
    truth
        In ppm, referenced as the maps are; None leaves the differences out.
    geometry
        For the voxels' proportions.
    centre
        Voxel that both planes go through.
    title
        One line above.

    Returns
    -------
    Figure
        Ready for ``savefig``; no window is opened.
    """
    kinds = ("map",) if truth is None else ("map", "difference")
    rows = [(kind, axis) for kind in kinds for axis in _PLANES]
    columns = len(results) + (truth is not None)
    figure = _figure((_PANEL * columns + 1.2, _PANEL * len(rows) + 0.8))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    shown: dict[str, AxesImage] = {}
    for panels, (kind, axis) in zip(grid, rows, strict=True):
        for panel, image in zip(panels, _volumes(results, truth, kind), strict=True):
            _hide_frame(panel)
            if image is not None:
                shown[kind] = _draw(panel, _plane(image, axis, centre), geometry, axis, kind)
    _label(grid, results, truth is not None)
    _colour_bars(figure, grid, shown, kinds)
    figure.suptitle(title, fontsize=10)
    return figure


def spectrum_figure(curves: Mapping[str, ErrorSpectrum], title: str = "") -> Figure:
    """Relative k-space error of every method over the kernel's magnitude; 1 is an empty map."""
    figure = _figure((6.4, 4.2))
    _draw_curves(figure.subplots(), curves, title)
    return figure


def spectrum_panels(panels: Mapping[str, Mapping[str, ErrorSpectrum]]) -> Figure:
    """One panel of `spectrum_figure` for each condition, three a row, on one scale."""
    columns = min(3, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = _figure((4.4 * columns, 3.3 * rows))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        _draw_curves(axes, curves, name)
    highest = max((_highest(c) for curves in panels.values() for c in curves.values()), default=1.0)
    grid[0].set_ylim(0, min(_CEILING, 1.1 * highest))
    return figure


def sweep_figure(
    curves: Mapping[str, Mapping[float, float]], axis: str, score: str, title: str = ""
) -> Figure:
    """One curve a method: a score over what was varied."""
    figure = _figure((6.4, 4.2))
    axes = figure.subplots()
    for name, curve in curves.items():
        positions = sorted(curve)
        values = [curve[position] for position in positions]
        axes.plot(positions, values, marker="o", markersize=3, label=name)
    axes.set(xlabel=axis, ylabel=score, title=title)
    axes.grid(visible=True, alpha=0.3)
    if curves:
        axes.legend()
    return figure


def _draw_curves(axes: Axes, curves: Mapping[str, ErrorSpectrum], title: str) -> None:
    for name, curve in curves.items():
        axes.plot(curve.centres, curve.error, marker="o", markersize=3, label=name)
    axes.axhline(1.0, color="0.6", linewidth=1, linestyle=":")
    axes.set(xlabel="|D(k)|", ylabel="relative error of chi(k)", xlim=(0, 2 / 3), title=title)
    highest = max((_highest(curve) for curve in curves.values()), default=1.0)
    axes.set_ylim(0, min(_CEILING, 1.1 * highest))
    axes.grid(visible=True, alpha=0.3)
    if curves:
        axes.legend()


def mask_centre(mask: Bool[np.ndarray, "x y z"]) -> tuple[int, int, int]:
    """Voxel at the mask's centre of mass."""
    x, y, z = (round(float(index.mean())) for index in np.nonzero(mask))
    return x, y, z


def _figure(size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def _volumes(results: Sequence[Result], truth: Tensor | None, kind: str) -> list[Tensor | None]:
    maps = [result.chi for result in results]
    if truth is None:
        return list(maps)
    if kind == "map":
        return [truth, *maps]
    return [None, *(None if chi is None else chi - truth for chi in maps)]


def _plane(volume: Tensor, axis: int, centre: tuple[int, int, int]) -> np.ndarray:
    plane: np.ndarray = volume.select(axis, centre[axis]).numpy().T
    return plane


def _draw(panel: Axes, plane: np.ndarray, geometry: Geometry, axis: int, kind: str) -> AxesImage:
    across, up = (d for i, d in enumerate(geometry.voxel_size) if i != axis)
    window, colours = (WINDOW, "gray") if kind == "map" else (DIFFERENCE_WINDOW, "RdBu_r")
    return panel.imshow(
        plane, origin="lower", aspect=up / across, cmap=colours, vmin=-window, vmax=window
    )


def _hide_frame(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)


def _label(grid: np.ndarray, results: Sequence[Result], with_truth: bool) -> None:
    first = int(with_truth)
    if with_truth:
        grid[0, 0].set_title("truth", fontsize=10)
    for panel, result in zip(grid[0, first:], results, strict=True):
        panel.set_title(_heading(result), fontsize=9)
        if result.error:
            panel.text(0.5, 0.5, "failed", ha="center", va="center", transform=panel.transAxes)


def _heading(result: Result) -> str:
    if "nrmse" not in result.scores:
        return result.inverter
    scores = result.scores
    return f"{result.inverter}\nNRMSE {scores['nrmse']:.1f} %, XSIM {scores['xsim']:.3f}"


def _colour_bars(
    figure: Figure, grid: np.ndarray, shown: Mapping[str, AxesImage], kinds: Sequence[str]
) -> None:
    names = {"map": "chi / ppm", "difference": "chi - truth / ppm"}
    for kind, image in shown.items():
        first = kinds.index(kind) * len(_PLANES)
        panels = grid[first : first + len(_PLANES)].ravel().tolist()
        figure.colorbar(image, ax=panels, label=names[kind], shrink=0.8, extend="both")


def _highest(curve: ErrorSpectrum) -> float:
    return max((e for e in curve.error if not math.isnan(e)), default=1.0)
