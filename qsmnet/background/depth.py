"""How deep inside the mask a voxel lies."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.geometry import Geometry


def depth_in_mask(
    mask: Bool[Tensor, "x y z"], geometry: Geometry, limit: float = math.inf
) -> Float[Tensor, "x y z"]:
    """Distance in mm from each voxel's centre to the nearest one outside the mask or the grid.

    Exact up to ``limit`` mm; deeper voxels are given some depth beyond it. The squared distance is
    a minimum along one axis after the other (Saito & Toriwaki 1994), which runs where the mask is.
    Methods that ask for a few mm need a few passes, a tenth of a general distance transform.
    """
    reach = [
        min(size // 2 + 1, int(min(limit / edge, size)) + 1)
        for size, edge in zip(mask.shape, geometry.voxel_size, strict=True)
    ]
    squared = (_steps_inside(mask, 2, reach[2]).float() * geometry.voxel_size[2]).square_()
    for axis in (1, 0):
        squared = _nearest_along(squared, axis, reach[axis], geometry.voxel_size[axis])
    return squared.sqrt_()


def _steps_inside(mask: Tensor, axis: int, reach: int) -> Tensor:
    """Count steps along ``axis`` to the nearest voxel outside, at most ``reach``."""
    size = mask.shape[axis]
    inside = mask.clone()
    steps = inside.to(torch.int16)
    for step in range(1, reach):
        # a neighbour beyond the grid is outside
        inside.narrow(axis, 0, min(step, size)).zero_()
        inside.narrow(axis, max(size - step, 0), min(step, size)).zero_()
        if step < size:
            inside.narrow(axis, step, size - step).logical_and_(mask.narrow(axis, 0, size - step))
            inside.narrow(axis, 0, size - step).logical_and_(mask.narrow(axis, step, size - step))
        steps += inside
    return steps


def _nearest_along(squared: Tensor, axis: int, reach: int, edge: float) -> Tensor:
    """Minimum over steps along ``axis`` of ``squared`` there and the step's own square."""
    size = squared.shape[axis]
    nearest = squared.clone()
    for step in range(1, reach + 1):
        if step >= size:
            break
        there = squared.add((step * edge) ** 2)
        for here, other in ((step, 0), (0, step)):
            part = nearest.narrow(axis, here, size - step)
            torch.minimum(part, there.narrow(axis, other, size - step), out=part)
        border = (step * edge) ** 2
        nearest.select(axis, step - 1).clamp_(max=border)
        nearest.select(axis, size - step).clamp_(max=border)
    return nearest
