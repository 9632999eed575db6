"""Procedural brains: a warped head with folded cortex, ventricles, deep nuclei and veins.

Every brain is a function of space in mm, so that one record renders on any grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from qsmnet.simulate import tissue
from qsmnet.simulate.grid import WHOLE, Grid, Window, paint
from qsmnet.simulate.masks import erode
from qsmnet.simulate.overlays import Lesions, Texture, Vessels
from qsmnet.simulate.phantom import Phantom, Record
from qsmnet.simulate.randomness import (
    draw_seed,
    lattice_noise,
    small_rotation,
    uniform,
)
from qsmnet.simulate.shapes import ellipsoid

# centre and half axes in mm of the right-hand structures, x to the right, y forward, z up; the left
# ones are mirrored. Sizes follow adult atlases roughly; every brain varies them by a fifth and
# warps them.
_NUCLEI: dict[int, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    tissue.CAUDATE: ((13, 12, 10), (4.5, 14, 8)),
    tissue.PUTAMEN: ((25, 4, 0), (5, 15, 9)),
    tissue.PALLIDUM: ((19, -2, -1), (4, 8, 6)),
    tissue.THALAMUS: ((11, -18, 8), (8, 13, 8)),
    tissue.RED_NUCLEUS: ((5, -20, -10), (3.2, 3.2, 3.8)),
    tissue.NIGRA: ((9, -16, -13), (4.5, 6, 2.5)),
    tissue.DENTATE: ((14, -58, -34), (6.5, 7.5, 4)),
}
_VENTRICLES = (
    ((11, 2, 14), (4.5, 26, 6)),
    ((18, -36, 8), (5, 12, 8)),
    ((0, -10, -2), (2, 11, 9)),
    ((0, -48, -30), (4, 5, 9)),
)
_CEREBELLUM = ((0, -52, -38), (48, 30, 24))
#: Half axes in mm of the mean adult cerebrum.
_CEREBRUM = (66.0, 84.0, 60.0)


@dataclass(frozen=True)
class Brain:
    """Random procedural brains in tissue-like susceptibility, with vessels, lesions and texture.

    Parameters
    ----------
    whole
        Share of brains scaled so that all of the brain lies in the grid; the others are 0.7 to 1.1
        times an adult's and the grid is a window somewhere in them.
    margin
        Range of the field of view over the extent of a whole brain.
    erosion
        Largest number of voxel layers that the mask loses.
    random_contrast
        Share of brains whose tissue means are drawn from N(0, 0.1 ppm) instead of tissue's ranges.
    vessels, lesions, texture
        Overlays.
    """

    whole: float = 1.0
    margin: Sequence[float] = (1.08, 1.5)
    erosion: int = 3
    random_contrast: float = 0.2
    vessels: Vessels = field(default_factory=Vessels)
    lesions: Lesions = field(default_factory=Lesions)
    texture: Texture = field(default_factory=Texture)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Anatomy, contrast, overlays, and where the brain lies in the grid."""
        radii = [r * float(rng.uniform(0.9, 1.1)) for r in _CEREBRUM]
        placement = self._draw_placement(rng, grid, radii)
        return {
            "placement": placement,
            "radii": radii,
            "warp": {
                "seed": draw_seed(rng),
                "spacing": uniform(rng, (25, 45)),
                "amplitude": uniform(rng, (1, 5)),
            },
            "folding": {
                "seed": draw_seed(rng),
                "spacing": uniform(rng, (4.5, 7.0)),
                "amplitude": uniform(rng, (12, 24)),
                "cortex": uniform(rng, (5.0, 9.0)),
            },
            "nuclei": [self._draw_nucleus(rng, label) for label in _NUCLEI],
            "ventricles": uniform(rng, (0.6, 1.5)),
            "fissure": uniform(rng, (0.5, 1.5)),
            "chi": self._draw_contrast(rng),
            "vessels": self.vessels.draw(rng, radii),
            "lesions": self.lesions.draw(rng, radii),
            "texture": self.texture.draw(rng),
            "erosion": int(rng.integers(0, self.erosion + 1)),
            "softness": uniform(rng, (1.0, 1.6)),
        }

    def render(self, record: Record, grid: Grid) -> Phantom:
        """Paint tissue, then the overlays."""
        canvas = BrainCanvas(record, grid)
        points = warped(canvas.points(), record["warp"])
        depth = -brain_surface(points, record["radii"])
        paint_tissue(canvas, points, depth, record)
        self.texture.render(record["texture"], points, canvas.chi)
        self.vessels.render(record["vessels"], canvas)
        self.lesions.render(record["lesions"], canvas)
        mask = erode(depth > 0, record["erosion"])
        if not bool(mask.any()):
            # a brain of few voxels keeps its layers
            mask = depth > 0
        return Phantom(canvas.chi * mask, mask, canvas.segmentation * mask)

    def _draw_placement(
        self, rng: np.random.Generator, grid: Grid, radii: list[float]
    ) -> dict[str, object]:
        whole = bool(rng.random() < self.whole)
        rotation = small_rotation(rng, 12.0)
        if not whole:
            centre = [float(rng.uniform(-0.55, 0.55)) * r for r in radii]
            return {"scale": uniform(rng, (0.7, 1.1)), "centre": centre, "rotation": rotation}
        # the cerebellum reaches below the cerebrum: the height is more than twice its half axis
        sizes = (2 * radii[0], 2 * radii[1], 2.05 * radii[2])
        fit = min(e / s for e, s in zip(grid.extent, sizes, strict=True))
        scale = fit / uniform(rng, self.margin)
        return {"scale": scale, "centre": [0.0, 0.0, -1.5 * scale], "rotation": rotation}

    def _draw_nucleus(self, rng: np.random.Generator, label: int) -> Record:
        return {
            "label": label,
            "shift": rng.normal(0, 1.0, 3).tolist(),
            "size": rng.uniform(0.8, 1.2, 3).tolist(),
            "rotation": small_rotation(rng, 20.0),
        }

    def _draw_contrast(self, rng: np.random.Generator) -> dict[str, float]:
        if rng.random() < self.random_contrast:
            return {str(label): float(rng.normal(0, 0.1)) for label in tissue.RANGES}
        return {str(label): uniform(rng, bounds) for label, bounds in tissue.RANGES.items()}


class BrainCanvas:
    """Susceptibility and labels that tissue is painted on, with partial volume.

    Parameters
    ----------
    record
        With ``placement`` (scale, centre in mm, rotation), ``softness`` and ``chi`` by label.
    grid
        What is drawn on.
    """

    def __init__(self, record: Record, grid: Grid) -> None:
        self.placement: Record = record["placement"]
        self.grid = grid
        self.margin: float = grid.margin / self.placement["scale"]
        self.softness: float = record["softness"]
        self.values: dict[str, float] = record["chi"]
        self.chi: Float[Tensor, "x y z"] = torch.zeros(grid.shape, device=grid.device)
        self.segmentation: UInt8[Tensor, "x y z"] = torch.zeros(
            grid.shape, dtype=torch.uint8, device=grid.device
        )

    def tissue(self, label: int, distance: Tensor) -> None:
        """Paint a tissue where ``distance`` (the brain's mm) is negative."""
        self.blend(label, self.coverage(distance), self.values[str(label)])

    def coverage(self, distance: Tensor) -> Tensor:
        """Share of a voxel inside a surface, from the signed distance in the brain's mm."""
        width = self.grid.ramp(distance) / float(self.placement["scale"])
        return (0.5 - distance / (width * self.softness)).clamp(0.0, 1.0)

    def blend(
        self, label: int | None, weight: Tensor, value: Tensor | float, window: Window = WHOLE
    ) -> None:
        """Paint a value; label the voxels that it fills by more than half."""
        paint(self.chi[window], weight, value)
        if label is not None:
            self.segmentation[window][weight > 0.5] = label

    def points(self, window: Window = WHOLE) -> Float[Tensor, "3 x y z"]:
        """Coordinates in the brain's mm, before warping."""
        centre = torch.tensor(self.placement["centre"], device=self.grid.device)
        rotation = torch.tensor(self.placement["rotation"], device=self.grid.device)
        offset = self.grid.points(window) - centre.reshape(3, 1, 1, 1)
        return torch.einsum("ij,jxyz->ixyz", rotation, offset / float(self.placement["scale"]))

    def window(self, path: Sequence[Sequence[float]], reach: float) -> Window:
        """Block of voxels within ``reach`` of the path's middle and ends, all in the brain's mm."""
        ends = np.array(path)
        middle = ends.mean(0)
        radius = float(np.linalg.norm(ends - middle, axis=1).max()) + reach
        rotation, scale = np.array(self.placement["rotation"]), self.placement["scale"]
        centre = rotation.T @ middle * scale + np.array(self.placement["centre"])
        return self.grid.window(centre.tolist(), radius * scale)


def paint_tissue(canvas: BrainCanvas, points: Tensor, depth: Tensor, record: Record) -> None:
    """Paint the tissue of a brain, from the outside in.

    Parameters
    ----------
    points, depth
        The brain's mm after warping, and how far below the brain's surface they are.
    record
        Of `Brain.draw`.
    """
    folded = depth + _folding(record["folding"], points, depth)
    canvas.tissue(tissue.CSF, -depth)
    canvas.tissue(tissue.GREY_MATTER, -folded)
    canvas.tissue(tissue.WHITE_MATTER, record["folding"]["cortex"] - folded)
    _paint_fissure(canvas, points, record)
    _paint_ventricles(canvas, points, record)
    _paint_nuclei(canvas, points, record)


def warped(points: Tensor, warp: Record) -> Float[Tensor, "3 x y z"]:
    """Shift points (mm) by smooth noise."""
    shifts = [lattice_noise(warp["seed"] + i, warp["spacing"], points) for i in range(3)]
    return points + float(warp["amplitude"]) * torch.stack(shifts)


def brain_surface(
    points: Float[Tensor, "3 x y z"], radii: Sequence[float]
) -> Float[Tensor, "x y z"]:
    """Signed distance in mm to cerebrum and cerebellum, negative inside."""
    centre = torch.tensor(_CEREBELLUM[0], device=points.device).reshape(3, 1, 1, 1)
    return torch.minimum(ellipsoid(points, radii), ellipsoid(points - centre, _CEREBELLUM[1]))


def _folding(record: Record, points: Tensor, depth: Tensor) -> Tensor:
    """Displacement of the cortical sheet: smooth noise that fades with depth."""
    noise = lattice_noise(record["seed"], record["spacing"], points)
    fade = torch.exp(-((depth.clamp_min(0) / 22.0) ** 2))
    return float(record["amplitude"]) * fade * noise


def _paint_fissure(canvas: BrainCanvas, points: Tensor, record: Record) -> None:
    # the fissure between the hemispheres, above the ventricles and in front of the cerebellum
    half_width = record["fissure"]
    distance = torch.maximum(points[0].abs() - half_width, 24.0 - points[1:].square().sum(0).sqrt())
    distance = torch.maximum(distance, -12.0 - points[2])
    canvas.tissue(tissue.CSF, distance)


def _paint_ventricles(canvas: BrainCanvas, points: Tensor, record: Record) -> None:
    for centre, radii in _VENTRICLES:
        mirrored = points if centre[0] == 0 else torch.stack([points[0].abs(), *points[1:]])
        offset = torch.tensor(centre, device=points.device, dtype=points.dtype)
        scaled = [r * record["ventricles"] for r in radii]
        canvas.tissue(tissue.CSF, ellipsoid(mirrored - offset.reshape(3, 1, 1, 1), scaled))


def _paint_nuclei(canvas: BrainCanvas, points: Tensor, record: Record) -> None:
    mirrored = torch.stack([points[0].abs(), *points[1:]])
    for nucleus in record["nuclei"]:
        centre, radii = _NUCLEI[nucleus["label"]]
        moved = torch.tensor(centre, dtype=points.dtype, device=points.device)
        moved = moved + torch.tensor(nucleus["shift"], dtype=points.dtype, device=points.device)
        rotation = torch.tensor(nucleus["rotation"], device=points.device)
        local = torch.einsum("ij,jxyz->ixyz", rotation, mirrored - moved.reshape(3, 1, 1, 1))
        size = [r * s for r, s in zip(radii, nucleus["size"], strict=True)]
        canvas.tissue(nucleus["label"], ellipsoid(local, size))
