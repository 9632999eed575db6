"""Masks of objects that have none of their own."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import uniform


def draw_blob_mask(rng: np.random.Generator, grid: Grid) -> Record:
    """Draw a union of 10 to 25 Gaussians about the grid's middle, as in the DeepQSM lineage."""
    extent = np.array(grid.extent)
    n = int(rng.integers(10, 26))
    return {
        "centres": (rng.normal(0, 0.1, size=(n, 3)) * extent).tolist(),
        "widths": (rng.uniform(0.13, 0.2, size=(n, 3)) * extent).tolist(),
        "level": uniform(rng, (0.4, 0.6)),
    }


def render_blob_mask(record: Record, grid: Grid) -> Bool[Tensor, "x y z"]:
    """Where any of the Gaussians exceeds the level."""
    mask = torch.zeros(grid.shape, dtype=torch.bool, device=grid.device)
    x, y, z = (grid.axis(i) for i in range(3))
    for centre, width in zip(record["centres"], record["widths"], strict=True):
        px, py, pz = (
            torch.exp(-0.5 * ((axis - c) / w) ** 2)
            for axis, c, w in zip((x, y, z), centre, width, strict=True)
        )
        mask |= px[:, None, None] * py[None, :, None] * pz[None, None, :] > record["level"]
    return mask


def erode(mask: Bool[Tensor, "x y z"], voxels: int) -> Bool[Tensor, "x y z"]:
    """Remove ``voxels`` layers; beyond the grid counts as inside: a crop is not eroded there."""
    if voxels == 0:
        return mask
    grown = (~mask).float()[None, None]
    # a cube, axis by axis
    for axis in range(3):
        size = [2 * voxels + 1 if other == axis else 1 for other in range(3)]
        padding = [voxels if other == axis else 0 for other in range(3)]
        grown = torch.nn.functional.max_pool3d(grown, size, stride=1, padding=padding)
    return grown[0, 0] < 0.5
