"""One picture of a reconstruction: three planes of every map, oriented, in true proportions."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from qsmnet.io.files import atomic_write

_DISCLAIMER = "Research use only. Not a medical device."
# (axis that is cut, axis to the right, axis upwards) of volumes whose axes run to R, A, S
_PLANES = (("axial", 2, 0, 1), ("coronal", 1, 0, 2), ("sagittal", 0, 1, 2))
_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of the report.

    Parameters
    ----------
    name
        Heading.
    data
        ``(x, y, z)``.
    window
        Values shown black and white; None takes the 1st and 99th percentile in the mask.
    unit
        Of the colour bar.
    """

    name: str
    data: Float[np.ndarray, "x y z"]
    window: tuple[float, float] | None = None
    unit: str = ""


def save_report(
    path: str | Path,
    panels: Sequence[Panel],
    mask: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    title: str = "",
    notes: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write a PNG: one row a plane through the mask's centre, one column a panel, mask outlined.

    Planes are shown in radiological convention (the subject's right on the left), after flipping
    and permuting axes to the nearest world axes; nothing is interpolated.

    Parameters
    ----------
    path
        The PNG.
    panels
        What to show.
    mask
        Outlined in every plane; percentiles and the centre are taken in it.
    affine
        4x4, voxel indices to mm.
    title, notes
        Heading, and lines below the pictures.

    Raises
    ------
    OutputError
        If the file exists and ``overwrite`` is false, or cannot be written.
    """
    orientation = nib.io_orientation(affine)
    edges = nib.affines.voxel_sizes(affine)[np.argsort(orientation[:, 0])]
    inside = nib.apply_orientation(mask, orientation)
    heights = [float(inside.shape[up] * edges[up]) for _, _, _, up in _PLANES]
    widest = max(inside.shape[right] * edges[right] for _, _, right, _ in _PLANES)
    figure, grid = _layout(len(panels), heights, float(widest), notes)
    centre = [round(float(np.mean(index))) for index in np.nonzero(inside)]
    for column, panel in enumerate(panels):
        volume = nib.apply_orientation(panel.data, orientation)
        window = panel.window or _window(volume, inside)
        for row, plane in enumerate(_PLANES):
            image = _draw(grid[row][column], volume, inside, plane, centre, edges, window)
            if column == 0:
                grid[row][0].set_ylabel(plane[0], color="white", labelpad=14)
        grid[0][column].set_title(panel.name, color="white", fontsize=12)
        bar = figure.colorbar(
            image,
            cax=grid[3][column],
            orientation="horizontal",
            ticks=[window[0], sum(window) / 2, window[1]],
            format="%.3g",
        )
        bar.set_label(panel.unit, color="white")
        bar.ax.tick_params(colors="white", labelsize=9)
        left, *_, end = bar.ax.get_xticklabels()
        left.set_horizontalalignment("left")
        end.set_horizontalalignment("right")
    _write_text(figure, title, notes)
    with atomic_write(path, overwrite) as temporary:
        # without the version that matplotlib writes, equal inputs give equal bytes
        figure.savefig(temporary, facecolor="black", metadata={"Software": None})


def _layout(
    columns: int, heights: Sequence[float], widest: float, notes: Sequence[str]
) -> tuple[Figure, list[list[Axes]]]:
    column_inches = 3.4
    scale = column_inches / widest
    rows = [max(height * scale, 0.8) for height in heights]
    text_inches = 0.9 + 0.22 * len(_wrapped(notes, columns))
    width, height = column_inches * columns + 0.9, sum(rows) + 1.7 + text_inches
    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    spec = figure.add_gridspec(
        4,
        columns,
        height_ratios=[*rows, 0.12],
        left=0.6 / width,
        right=1 - 0.3 / width,
        top=1 - 0.75 / height,
        bottom=text_inches / height,
        wspace=0.08,
        hspace=0.14,
    )
    return figure, [[figure.add_subplot(spec[row, c]) for c in range(columns)] for row in range(4)]


def _draw(
    axes: Axes,
    volume: np.ndarray,
    mask: np.ndarray,
    plane: tuple[str, int, int, int],
    centre: Sequence[int],
    edges: np.ndarray,
    window: tuple[float, float],
) -> AxesImage:
    _, cut, right, up = plane
    picture = volume.take(centre[cut], cut).T
    outline = mask.take(centre[cut], cut).T
    image = axes.imshow(
        picture,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        interpolation="nearest",
        aspect=float(edges[up] / edges[right]),
    )
    if outline.any() and not outline.all():
        axes.contour(outline, levels=[0.5], colors="#ffb000", linewidths=0.7)
    if right == 0:
        axes.invert_xaxis()
    axes.set(xticks=[], yticks=[])
    low, high = _ENDS[right] if right != 0 else _ENDS[right][::-1]
    ends = (
        (0.02, 0.5, low),
        (0.95, 0.5, high),
        (0.48, 0.02, _ENDS[up][0]),
        (0.48, 0.94, _ENDS[up][1]),
    )
    for x, y, letter in ends:
        # a dark edge keeps the letters readable on bright tissue
        edge = [withStroke(linewidth=2.5, foreground="black")]
        axes.text(
            x, y, letter, color="#66ccff", fontsize=10, transform=axes.transAxes, path_effects=edge
        )
    return image


def _window(volume: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(volume[mask], [1, 99])
    return float(low), float(high if high > low else low + 1.0)


def _wrapped(notes: Sequence[str], columns: int) -> list[str]:
    return [line for note in notes for line in textwrap.wrap(note, 44 * columns)]


def _write_text(figure: Figure, title: str, notes: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    columns = round((width - 0.9) / 3.4)
    figure.text(0.5, 1 - 0.28 / height, title, color="white", ha="center", va="center", fontsize=14)
    lines = "\n".join(_wrapped(notes, columns))
    figure.text(0.3 / width, 0.34 / height, lines, color="#cccccc", va="bottom", fontsize=9)
    figure.text(0.3 / width, 0.12 / height, _DISCLAIMER, color="#ffb000", va="bottom", fontsize=9)
