"""What a background removal leaves: a harmonic field of low order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.simulate.corruptions.corruption import Forward, check_share, rms, with_field
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import uniform
from qsmnet.simulate.scene import Scene


@dataclass(frozen=True)
class Remainder:
    r"""Sum of harmonic polynomials, :math:`\mathrm{Re}\,(u \cdot x)^n` with :math:`u \cdot u = 0`.

    Every harmonic polynomial of degree n is a sum of such; a few are drawn of each degree.

    Parameters
    ----------
    probability
        Share of scans with any.
    strength
        Range of its root mean square in the mask, over that of the field.
    degree
        Highest.
    """

    probability: float = 0.4
    strength: Sequence[float] = (0.0, 0.2)
    degree: int = 4

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        if not 0 <= self.strength[0] <= self.strength[1]:
            raise ValueError(f"strength must be two increasing numbers, got {list(self.strength)}")
        if self.degree < 1:
            raise ValueError(f"degree must be at least 1, got {self.degree}")

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Draw the strength, and two polynomials of every degree."""
        if rng.random() >= self.probability:
            return None
        terms = [_draw_term(rng, n) for n in range(1, self.degree + 1) for _ in range(2)]
        return {"strength": uniform(rng, self.strength), "terms": terms}

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:  # noqa: ARG002
        """Add it to the field, not to the noise that is told: no user knows of it."""
        background = polynomial(record["terms"], scene)
        size = rms(background, scene.mask)
        wanted = record["strength"] * rms(scene.local_field_exact, scene.mask)
        return with_field(scene, background * (wanted / size if size > 0 else 0.0))


def _draw_term(rng: np.random.Generator, degree: int) -> Record:
    real = rng.normal(size=3)
    real /= np.linalg.norm(real)
    other = np.cross(real, rng.normal(size=3))
    # as long and at a right angle: the square of the complex vector vanishes
    imaginary = other / np.linalg.norm(other)
    weight = float(rng.normal()) / degree
    return {
        "degree": degree,
        "weight": weight,
        "real": real.tolist(),
        "imaginary": imaginary.tolist(),
    }


def polynomial(terms: Sequence[Record], scene: Scene) -> Float[Tensor, "x y z"]:
    """Sum of harmonic polynomials about the middle of the grid, in half its largest extent."""
    x, y, z = scene.mask.shape
    grid = Grid((x, y, z), scene.geometry.voxel_size, scene.mask.device)
    points = grid.points() / (max(grid.extent) / 2)
    total = torch.zeros(x, y, z, device=grid.device)
    for term in terms:
        real, imaginary = (
            torch.einsum("i,ixyz->xyz", torch.tensor(term[part], device=grid.device), points)
            for part in ("real", "imaginary")
        )
        angle = term["degree"] * torch.atan2(imaginary, real)
        size = (real.square() + imaginary.square()) ** (term["degree"] / 2)
        total += term["weight"] * math.sqrt(2) * size * angle.cos()
    return total
