"""A head without a label map: the procedural brain, and around it skull, scalp, face and neck."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.simulate.brain import Brain, brain_surface, paint_tissue, warped
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.canvas import HeadCanvas
from qsmnet.simulate.overlays import Lesions
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import uniform
from qsmnet.simulate.shapes import capsule, ellipsoid

Ball = tuple[tuple[float, float, float], tuple[float, float, float]]

# centre and half axes in mm in the frame of the brain (x to the right, y forward, z up); what has
# an x is mirrored. The brain's underside is rounder than a real one, so that the base of the skull
# and what lies below is lower than in an atlas.
_FACE: Ball = ((0, 44, -62), (63, 60, 64))
_EYE: Ball = ((31, 76, -46), (12, 12, 12))
_ORBIT: Ball = ((31, 68, -47), (17, 20, 16))
_AIR: dict[str, tuple[Ball, ...]] = {
    "frontal sinus": (((10, 86, -12), (11, 8, 10)),),
    "ethmoid": (((6, 58, -53), (6, 15, 9)),),
    "sphenoid sinus": (((8, 24, -66), (8, 10, 8)),),
    "maxillary sinus": (((25, 60, -78), (12, 14, 14)),),
    "mastoid": (((57, -26, -48), (5, 6, 8)), ((62, -20, -58), (5, 6, 7))),
}
_NOSE: Ball = ((0, 70, -72), (8, 24, 15))
Line = tuple[tuple[float, float, float], tuple[float, float, float], float]
_EAR_CANAL: Line = ((85, -12, -42), (52, -12, -46), 3.5)
_THROAT: Line = ((0, 34, -88), (0, 8, -190), 8)
_NECK: Line = ((0, -22, -70), (0, -30, -260), 56)
_SPINE: Line = ((0, -26, -84), (0, -28, -260), 12)
_BRAIN_STEM: Line = ((0, -24, -26), (0, -38, -72), 11)
_CORD: Line = ((0, -40, -72), (0, -46, -260), 5)
# of the skull: from the brain's surface in mm
_FLUID, _INNER, _OUTER = 2.5, 5.0, 9.5
_SCALP, _FAT, _SKIN = 16.0, 6.0, 2.0
_AIR_DISTANCE = 3.5


@dataclass(frozen=True)
class ProceduralHead:
    """Random heads drawn as solids.

    Parameters
    ----------
    brain
        Draws the brain's shape; its own contrast and overlays are not used.
    tilt
        Largest rotation in degrees of the head in the grid.
    sinuses
        Range of the size of air spaces, 1 is the common one.
    """

    brain: Brain = field(default_factory=lambda: Brain(lesions=Lesions(probability=0)))
    tilt: float = 6.0
    sinuses: Sequence[float] = (0.8, 1.2)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Draw shape and position; true size, the brain in the middle of the upper half."""
        record = self.brain.draw(rng, grid)
        rotation = record["placement"]["rotation"]
        top = grid.extent[2] / 2 - record["radii"][2] - _SCALP - 6.0
        centre = [0.0, -8.0, top]
        kept = ("radii", "warp", "folding", "nuclei", "ventricles", "fissure", "softness")
        return {
            **{name: record[name] for name in kept},
            "placement": {"scale": 1.0, "centre": centre, "rotation": rotation},
            "sinuses": {name: uniform(rng, self.sinuses) for name in _AIR},
        }

    def paint(self, record: Record, canvas: HeadCanvas) -> None:
        """Paint from the outside in: air, scalp, skull, brain, and the air within."""
        points = warped(canvas.points(), record["warp"])
        distance = brain_surface(points, record["radii"])
        canvas.add("air", torch.ones_like(distance))
        _paint_scalp(canvas, points, record["radii"])
        _paint_skull(canvas, points, distance)
        # cortex folds inwards alone
        canvas.limit = canvas.coverage(distance)
        paint_tissue(canvas, points, -distance, record)
        canvas.limit = torch.ones_like(distance)
        stem = _paint_stem(canvas, points, distance)
        _paint_face(canvas, points, distance, record["sinuses"])
        canvas.brain = canvas.coverage(torch.minimum(distance, stem))


def _paint_scalp(canvas: HeadCanvas, points: Tensor, radii: Sequence[float]) -> None:
    scalp = ellipsoid(points, [r + _SCALP for r in radii])
    surface = torch.minimum(torch.minimum(scalp, _ball(points, _FACE)), _line(points, _NECK))
    canvas.cover("skin", canvas.coverage(surface))
    canvas.cover("fat", canvas.coverage(surface + _SKIN))
    canvas.cover("muscle", canvas.coverage(surface + _FAT))


def _paint_skull(canvas: HeadCanvas, points: Tensor, distance: Tensor) -> None:
    canvas.cover("bone", canvas.coverage(_line(points, _SPINE)))
    canvas.cover("marrow", canvas.coverage(_line(points, _SPINE) + 2.0))
    canvas.cover("bone", canvas.coverage(distance - _OUTER))
    middle = (distance - (_INNER + _OUTER) / 2).abs() - 0.25 * (_OUTER - _INNER)
    # the diploe, of the vault alone
    canvas.cover("marrow", canvas.coverage(torch.maximum(middle, -10.0 - points[2])))
    canvas.cover("cerebrospinal fluid", canvas.coverage(distance - _FLUID))


def _paint_stem(canvas: HeadCanvas, points: Tensor, distance: Tensor) -> Tensor:
    cord, stem = _line(points, _CORD), _line(points, _BRAIN_STEM)
    around = torch.minimum(cord, stem) - 3.0
    outside = torch.maximum(around, -distance)
    canvas.cover("cerebrospinal fluid", canvas.coverage(outside))
    within = torch.maximum(torch.minimum(cord, stem), -distance)
    canvas.cover("brain stem", canvas.coverage(within))
    return stem


def _paint_face(
    canvas: HeadCanvas, points: Tensor, distance: Tensor, sinuses: dict[str, float]
) -> None:
    canvas.cover("fat", canvas.coverage(_outside(_ball(points, _ORBIT), distance)))
    canvas.cover("eye", canvas.coverage(_outside(_ball(points, _EYE), distance)))
    for name, balls in _AIR.items():
        for centre, radii in balls:
            ball = _ball(points, (centre, _scaled(radii, sinuses[name])))
            canvas.cover("bone", canvas.coverage(_outside(ball - 1.5, distance)))
            canvas.cover("air", canvas.coverage(_outside(ball, distance)))
    nose = _ball(points, _NOSE)
    canvas.cover("mucosa", canvas.coverage(_outside(nose, distance)))
    canvas.cover("air", canvas.coverage(_outside(nose + 3.0, distance)))
    for line in (_EAR_CANAL, _THROAT):
        canvas.cover("air", canvas.coverage(_outside(_line(points, line), distance)))


def _outside(solid: Tensor, distance: Tensor) -> Tensor:
    """Part of a solid that keeps its distance from the brain."""
    return torch.maximum(solid, _AIR_DISTANCE - distance)


def _scaled(radii: Sequence[float], factor: float) -> tuple[float, float, float]:
    x, y, z = (r * factor for r in radii)
    return x, y, z


def _mirrored(points: Tensor, centre: Sequence[float]) -> Tensor:
    return points if centre[0] == 0 else torch.stack([points[0].abs(), *points[1:]])


def _ball(points: Float[Tensor, "3 x y z"], ball: Ball) -> Float[Tensor, "x y z"]:
    centre = torch.tensor(ball[0], dtype=points.dtype, device=points.device)
    return ellipsoid(_mirrored(points, ball[0]) - centre.reshape(3, 1, 1, 1), ball[1])


def _line(points: Float[Tensor, "3 x y z"], line: Line) -> Float[Tensor, "x y z"]:
    return capsule(_mirrored(points, line[0]), *line)
