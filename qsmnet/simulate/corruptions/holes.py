"""Holes: signal that is lost within the brain, mostly where susceptibility is strong."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from qsmnet.simulate.corruptions.corruption import Forward, check_share, known_outside, with_mask
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import log_uniform
from qsmnet.simulate.scene import Scene

# a strong source is among this share of the voxels
_STRONG = 0.002


@dataclass(frozen=True)
class Holes:
    """One to six balls where the field is not known.

    Parameters
    ----------
    probability
        Share of scans with any.
    radius
        Smallest and largest in mm, log-uniform.
    strong
        Share of holes about a voxel of the strongest susceptibility; the others are anywhere.
    in_mask
        Share of scans whose mask has the holes too, so that no susceptibility is sought in them:
        in half of these the field around is that of the rest alone, in the others that of all.
    """

    probability: float = 0.25
    radius: Sequence[float] = (1.0, 5.0)
    strong: float = 0.6
    in_mask: float = 0.5

    def __post_init__(self) -> None:
        for name in ("probability", "strong", "in_mask"):
            check_share(name, getattr(self, name))
        if not 0 < self.radius[0] <= self.radius[1]:
            raise ValueError(f"radius must be two increasing lengths in mm, got {self.radius}")

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Draw where they are, as ranks among the voxels of a mask, and what is left in them."""
        if rng.random() >= self.probability:
            return None
        holes = [
            {
                "strong": bool(rng.random() < self.strong),
                "rank": float(rng.random()),
                "radius": log_uniform(rng, self.radius[0], self.radius[1]),
            }
            for _ in range(int(rng.integers(1, 7)))
        ]
        in_mask = bool(rng.random() < self.in_mask)
        return {"holes": holes, "in_mask": in_mask, "leak": bool(rng.random() < 0.5)}

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:
        """Cut them out; one convolution where their sources go."""
        hole = _balls(record["holes"], scene) & scene.mask
        mask = scene.mask & ~hole
        if not bool(mask.any()):
            return scene
        if record["in_mask"]:
            leak = record["leak"] and not known_outside(scene)
            scene = with_mask(scene, mask, None if leak else forward(scene.chi * hole))
        support = scene.field_support & ~hole
        return replace(scene, field_support=support, local_field=scene.local_field * support)


def _balls(holes: Sequence[Record], scene: Scene) -> Bool[Tensor, "x y z"]:
    x, y, z = scene.mask.shape
    grid = Grid((x, y, z), scene.geometry.voxel_size, scene.mask.device)
    inside = torch.zeros_like(scene.mask)
    anywhere = scene.mask.flatten().nonzero()[:, 0]
    strength = (scene.chi.abs() * scene.mask).flatten()
    strongest = strength.topk(max(1, int(_STRONG * len(anywhere)))).indices
    for hole in holes:
        among = strongest if hole["strong"] else anywhere
        voxel = np.unravel_index(int(among[int(hole["rank"] * len(among))]), (x, y, z))
        centre = [float(grid.axis(axis)[i]) for axis, i in enumerate(voxel)]
        window = grid.window(centre, hole["radius"])
        middle = torch.tensor(centre, device=grid.device).reshape(3, 1, 1, 1)
        inside[window] |= (grid.points(window) - middle).square().sum(0) <= hole["radius"] ** 2
    return inside
