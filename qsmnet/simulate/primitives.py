"""Random solids: ellipsoids, cuboids, cylinders and shells, sized in mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qsmnet.simulate.grid import Grid, paint
from qsmnet.simulate.masks import draw_blob_mask, render_blob_mask
from qsmnet.simulate.phantom import Phantom, Record
from qsmnet.simulate.randomness import log_uniform, random_rotation
from qsmnet.simulate.shapes import SOLIDS


@dataclass(frozen=True)
class Primitives:
    """Rotated solids painted over or added to each other, each in its bounding box only.

    Parameters
    ----------
    count
        Fewest solids, and one more than most.
    size
        Smallest and largest half size in mm, log-uniform, capped at a third of the field of view.
    strength
        Smallest and largest scale in ppm of the Laplace-distributed susceptibility, log-uniform.
    unmasked
        Share of phantoms whose mask is the whole grid.
    """

    count: Sequence[int] = (10, 120)
    size: Sequence[float] = (1.5, 30.0)
    strength: Sequence[float] = (0.02, 0.5)
    unmasked: float = 0.1

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Solids, their susceptibility and the mask."""
        scale = log_uniform(rng, *self.strength)
        solids = [
            self._draw_solid(rng, grid, scale)
            for _ in range(int(rng.integers(self.count[0], self.count[1])))
        ]
        whole = bool(rng.random() < self.unmasked)
        return {"solids": solids, "mask": None if whole else draw_blob_mask(rng, grid)}

    def render(self, record: Record, grid: Grid) -> Phantom:
        """Paint the solids in the order of the record."""
        chi = torch.zeros(grid.shape, device=grid.device)
        for solid in record["solids"]:
            _paint_solid(chi, solid, grid)
        if record["mask"] is None:
            mask = torch.ones(grid.shape, dtype=torch.bool, device=grid.device)
        else:
            mask = render_blob_mask(record["mask"], grid)
        return Phantom(chi, mask, torch.zeros(grid.shape, dtype=torch.uint8, device=grid.device))

    def _draw_solid(self, rng: np.random.Generator, grid: Grid, scale: float) -> Record:
        largest = min(self.size[1], min(grid.extent) / 3)
        size = log_uniform(rng, self.size[0], max(largest, self.size[0] * 1.01))
        return {
            "kind": str(rng.choice(list(SOLIDS))),
            "centre": (rng.uniform(-0.45, 0.45, 3) * np.array(grid.extent)).tolist(),
            "radii": (size * rng.uniform(0.5, 1.0, 3)).tolist(),
            "rotation": random_rotation(rng),
            "chi": float(rng.laplace(0, scale)),
            "added": bool(rng.random() < 0.4),
            "softness": float(rng.uniform(1.0, 2.0)),
        }


def _paint_solid(chi: torch.Tensor, solid: Record, grid: Grid) -> None:
    window = grid.window(solid["centre"], 1.8 * max(solid["radii"]) + grid.margin)
    block = chi[window]
    if block.numel() == 0:
        return
    centre = torch.tensor(solid["centre"], device=grid.device).reshape(3, 1, 1, 1)
    rotation = torch.tensor(solid["rotation"], device=grid.device)
    points = torch.einsum("ij,jxyz->ixyz", rotation, grid.points(window) - centre)
    weight = grid.coverage(SOLIDS[solid["kind"]](points, solid["radii"]), solid["softness"])
    if solid["added"]:
        block.add_(weight * solid["chi"])
    else:
        paint(block, weight, solid["chi"])
