"""What is painted over tissue: texture, vessels, lesions. Positions are in the brain's mm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.simulate import tissue
from qsmnet.simulate.grid import WHOLE, Window
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import (
    draw_seed,
    lattice_noise,
    log_uniform,
    random_rotation,
    uniform,
)
from qsmnet.simulate.shapes import capsule, ellipsoid


@runtime_checkable
class Canvas(Protocol):
    """What overlays are painted on.

    Parameters
    ----------
    margin
        Distance from a surface, in the brain's mm, beyond which its partial volume does not reach.
    """

    margin: float

    def window(self, path: Sequence[Sequence[float]], reach: float) -> Window:
        """Block of voxels within ``reach`` mm of the path's bounding box."""
        ...

    def points(self, window: Window) -> Float[Tensor, "3 x y z"]:
        """Coordinates in the brain's millimetres, before warping."""
        ...

    def coverage(self, distance: Tensor) -> Tensor:
        """Share of a voxel inside a surface."""
        ...

    def blend(
        self, label: int | None, weight: Tensor, value: Tensor | float, window: Window = WHOLE
    ) -> None:
        """Paint a value with a weight in [0, 1]."""
        ...


@dataclass(frozen=True)
class Texture:
    """Smooth variation of susceptibility within tissue, at two scales.

    Parameters
    ----------
    strength
        Range of the standard deviation in ppm.
    spacing
        Lattice spacings in mm; correlation lengths are about twice these.
    """

    strength: Sequence[float] = (0.002, 0.015)
    spacing: Sequence[float] = (2.5, 8.0)

    def draw(self, rng: np.random.Generator) -> Record:
        """Draw a seed and a strength for each scale."""
        return {
            "seeds": [draw_seed(rng), draw_seed(rng)],
            "strength": [uniform(rng, self.strength), uniform(rng, self.strength)],
        }

    def render(self, record: Record, points: Tensor, chi: Tensor) -> None:
        """Add to ``chi`` in place."""
        for seed, strength, spacing in zip(
            record["seeds"], record["strength"], self.spacing, strict=True
        ):
            chi += strength * lattice_noise(seed, spacing, points)


@dataclass(frozen=True)
class Vessels:
    """Veins as random walks of tubes, and the sagittal sinus.

    Parameters
    ----------
    count
        Fewest and most veins.
    radius
        Thinnest and thickest in mm, log-uniform.
    chi
        Range in ppm: haematocrit times deoxygenation (about 0.15 to 0.45).
    sinus
        Share of brains with a sagittal sinus.
    """

    count: Sequence[int] = (0, 40)
    radius: Sequence[float] = (0.4, 1.6)
    chi: Sequence[float] = (0.15, 0.45)
    sinus: float = 0.7

    def draw(self, rng: np.random.Generator, radii: Sequence[float]) -> Record:
        """Paths in mm."""
        n = int(rng.integers(self.count[0], self.count[1] + 1))
        veins = [self._draw_vein(rng, radii) for _ in range(n)]
        if rng.random() < self.sinus:
            veins.append(self._draw_sinus(rng, radii))
        return {"veins": veins}

    def render(self, record: Record, canvas: Canvas) -> None:
        """Paint tubes with partial volume, labelled as blood."""
        for vein in record["veins"]:
            for start, stop in zip(vein["path"][:-1], vein["path"][1:], strict=True):
                window = canvas.window([start, stop], vein["radius"] + canvas.margin)
                distance = capsule(canvas.points(window), start, stop, vein["radius"])
                canvas.blend(tissue.BLOOD, canvas.coverage(distance), vein["chi"], window)

    def _draw_vein(self, rng: np.random.Generator, radii: Sequence[float]) -> Record:
        position = rng.normal(size=3)
        position *= np.array(radii) * rng.uniform(0.2, 0.95) / np.linalg.norm(position)
        # veins drain to the surface or to the middle; a walk with momentum does both
        heading = rng.normal(size=3)
        path = [position.tolist()]
        for _ in range(int(rng.integers(3, 9))):
            heading = heading + 0.6 * rng.normal(size=3)
            position = position + 6.0 * heading / np.linalg.norm(heading)
            path.append(position.tolist())
        return {
            "path": path,
            "radius": log_uniform(rng, self.radius[0], self.radius[1]),
            "chi": uniform(rng, self.chi),
        }

    def _draw_sinus(self, rng: np.random.Generator, radii: Sequence[float]) -> Record:
        inset = float(rng.uniform(2, 5))
        angles = np.radians(np.linspace(20, 165, 14))
        path = [
            [0.0, float((radii[1] - inset) * np.cos(a)), float((radii[2] - inset) * np.sin(a))]
            for a in angles
        ]
        return {"path": path, "radius": uniform(rng, (1.5, 3.0)), "chi": uniform(rng, self.chi)}


@dataclass(frozen=True)
class Lesions:
    """Calcifications, haemorrhages, microbleeds, and plaques with or without an iron rim.

    Parameters
    ----------
    probability
        Share of brains that have any.
    calcification
        Range in ppm; down to -3.5, which training data of published networks leave out.
    haemorrhage
        Range in ppm.
    """

    probability: float = 0.35
    calcification: Sequence[float] = (-3.5, -0.2)
    haemorrhage: Sequence[float] = (0.3, 2.0)

    def draw(self, rng: np.random.Generator, radii: Sequence[float]) -> Record:
        """One to six lesions."""
        n = int(rng.integers(1, 7)) if rng.random() < self.probability else 0
        kinds = rng.choice(["calcification", "haemorrhage", "microbleed", "plaque"], size=n)
        return {"lesions": [self._draw_lesion(rng, str(kind), radii) for kind in kinds]}

    def render(self, record: Record, canvas: Canvas) -> None:
        """Paint each in its bounding box."""
        for lesion in record["lesions"]:
            window = canvas.window([lesion["centre"]], max(lesion["radii"]) + canvas.margin)
            points = canvas.points(window)
            offset = torch.tensor(lesion["centre"], dtype=points.dtype, device=points.device)
            rotation = torch.tensor(lesion["rotation"], device=points.device)
            local = torch.einsum("ij,jxyz->ixyz", rotation, points - offset.reshape(3, 1, 1, 1))
            distance = ellipsoid(local, lesion["radii"])
            label = tissue.CALCIFICATION if lesion["kind"] == "calcification" else None
            value = torch.where(distance > -lesion["rim"], lesion["rim_chi"], lesion["chi"])
            canvas.blend(label, canvas.coverage(distance), value, window)

    def _draw_lesion(self, rng: np.random.Generator, kind: str, radii: Sequence[float]) -> Record:
        sizes = {
            "calcification": (0.8, 5.0),
            "haemorrhage": (3.0, 14.0),
            "microbleed": (0.8, 2.5),
            "plaque": (2.0, 8.0),
        }
        centre = rng.normal(size=3)
        centre *= np.array(radii) * rng.uniform(0, 0.85) / np.linalg.norm(centre)
        chi, rim = self._draw_values(rng, kind)
        return {
            "kind": kind,
            "centre": centre.tolist(),
            "radii": (log_uniform(rng, *sizes[kind]) * rng.uniform(0.6, 1.0, 3)).tolist(),
            "rotation": random_rotation(rng),
            "chi": chi,
            "rim_chi": rim,
            "rim": uniform(rng, (0.8, 2.0)),
        }

    def _draw_values(self, rng: np.random.Generator, kind: str) -> tuple[float, float]:
        if kind == "calcification":
            low, high = self.calcification
            chi = -log_uniform(rng, -high, -low)
            return chi, chi
        if kind == "plaque":
            return uniform(rng, (-0.01, 0.04)), uniform(rng, (0.0, 0.1))
        chi = log_uniform(rng, self.haemorrhage[0], self.haemorrhage[1])
        # a haematoma's rim holds more iron than its core; a microbleed has no rim to speak of
        return (chi * uniform(rng, (0.4, 1.0)), chi) if kind == "haemorrhage" else (chi, chi)
