"""Lesions that are asked for by susceptibility, size and tissue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from qsmnet.errors import UsageError
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.canvas import HeadCanvas
from qsmnet.simulate.head.tissues import TISSUES
from qsmnet.simulate.phantom import Record

_GAP = 6.0


@dataclass(frozen=True)
class Lesion:
    """A ball of one susceptibility: a bleed where it is positive, else a calcification.

    Parameters
    ----------
    chi
        In ppm.
    radius
        In mm.
    tissue
        What it lies in, of `qsmnet.simulate.head.tissues`.

    Raises
    ------
    UsageError
        If the radius is not positive or the tissue not known.
    """

    chi: float
    radius: float
    tissue: str = "white matter"

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise UsageError("lesions", f"radius {self.radius} mm is not positive", "give mm")
        if self.tissue not in TISSUES:
            fix = f"use one of {', '.join(sorted(TISSUES))}"
            raise UsageError("lesions", f"the tissue {self.tissue!r} is not known", fix)

    @property
    def kind(self) -> str:
        """Tissue that it is painted as."""
        return "haemorrhage" if self.chi > 0 else "calcification"


def place_lesions(
    rng: np.random.Generator, lesions: Sequence[Lesion], canvas: HeadCanvas
) -> list[Record]:
    """Choose where they lie: as deep in their tissue as they are large, where there is room.

    Parameters
    ----------
    canvas
        A whole head, drawn coarsely.

    Raises
    ------
    UsageError
        If the head has none of the tissue.
    """
    records: list[Record] = []
    points = canvas.points()
    for lesion in lesions:
        room = _room(canvas, lesion, records, points)
        deepest = float(room.max())
        if deepest <= 0:
            raise UsageError("lesions", f"no room left in {lesion.tissue}", "choose another tissue")
        candidates = np.argwhere(room >= min(lesion.radius, 0.9 * deepest))
        x, y, z = candidates[int(rng.integers(len(candidates)))]
        centre = points[:, x, y, z].tolist()
        records.append(
            {"kind": lesion.kind, "chi": lesion.chi, "radius": lesion.radius, "centre": centre}
        )
    return records


def _room(canvas: HeadCanvas, lesion: Lesion, others: list[Record], points: Tensor) -> np.ndarray:
    free = (canvas.segmentation == TISSUES[lesion.tissue].label) & (canvas.brain > 0.9)
    for other in others:
        centre = torch.tensor(other["centre"]).reshape(3, 1, 1, 1)
        apart = (points - centre).square().sum(0).sqrt()
        free &= apart > other["radius"] + lesion.radius + _GAP
    depth = ndimage.distance_transform_edt(free.numpy(), sampling=canvas.grid.voxel_size)
    return np.asarray(depth)


def paint_lesions(canvas: HeadCanvas, records: Sequence[Record]) -> None:
    """Paint each in its bounding box."""
    for lesion in records:
        window = canvas.window([lesion["centre"]], lesion["radius"] + canvas.margin)
        centre = torch.tensor(lesion["centre"]).reshape(3, 1, 1, 1)
        distance = (canvas.points(window) - centre).square().sum(0).sqrt() - lesion["radius"]
        canvas.cover(lesion["kind"], canvas.coverage(distance), window, lesion["chi"])


def coarse_grid(grid: Grid, edge: float = 2.0) -> Grid:
    """Grid of the same extent with voxels of about ``edge`` mm, to look for a place."""
    x, y, z = (max(8, round(e / edge)) for e in grid.extent)
    dx, dy, dz = (e / n for e, n in zip(grid.extent, (x, y, z), strict=True))
    return Grid((x, y, z), (dx, dy, dz), grid.device, grid.centre)
