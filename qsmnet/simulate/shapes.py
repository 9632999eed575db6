"""Signed distances (mm, negative inside) of simple solids, in their own axes."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Distance = Callable[[Tensor, Sequence[float]], Tensor]


def ellipsoid(points: Float[Tensor, "3 x y z"], radii: Sequence[float]) -> Float[Tensor, "x y z"]:
    """Distance to an ellipsoid, to first order: ``(rho - 1) / |grad rho|`` with rho = |p / radii|.

    Exact on the surface and for spheres.
    """
    scale = torch.tensor(radii, dtype=points.dtype, device=points.device)
    scale = scale.reshape(3, *[1] * (points.ndim - 1))
    rho = _length(points / scale)
    gradient = _length(points / scale**2)
    # the first-order formula is 0/0 at the centre, where the smallest radius is the distance
    return torch.where(rho > 1e-3, rho * (rho - 1) / gradient.clamp_min(1e-9), -float(min(radii)))


def cuboid(points: Float[Tensor, "3 x y z"], radii: Sequence[float]) -> Float[Tensor, "x y z"]:
    """Distance to a box of half edges ``radii``."""
    half = torch.tensor(radii, dtype=points.dtype, device=points.device)
    beyond = points.abs() - half.reshape(3, *[1] * (points.ndim - 1))
    outside = _length(beyond.clamp_min(0))
    return outside + beyond.amax(dim=0).clamp_max(0)


def cylinder(points: Float[Tensor, "3 x y z"], radii: Sequence[float]) -> Float[Tensor, "x y z"]:
    """Distance to a cylinder of radius ``radii[0]`` and half length ``radii[2]``, third axis."""
    side = _length(points[:2]) - radii[0]
    cap = points[2].abs() - radii[2]
    beyond = torch.stack([side, cap])
    return _length(beyond.clamp_min(0)) + beyond.amax(dim=0).clamp_max(0)


def shell(points: Float[Tensor, "3 x y z"], radii: Sequence[float]) -> Float[Tensor, "x y z"]:
    """Distance to the shell below an ellipsoid's surface, a quarter of its least radius thick."""
    thickness = 0.25 * min(radii)
    return (ellipsoid(points, radii) + thickness / 2).abs() - thickness / 2


def capsule(
    points: Float[Tensor, "3 x y z"], start: Sequence[float], stop: Sequence[float], radius: float
) -> Float[Tensor, "x y z"]:
    """Distance to the tube of ``radius`` around the segment from ``start`` to ``stop``."""
    view = (3, *[1] * (points.ndim - 1))
    a = torch.tensor(start, dtype=points.dtype, device=points.device).reshape(view)
    b = torch.tensor(stop, dtype=points.dtype, device=points.device).reshape(view)
    along = b - a
    position = ((points - a) * along).sum(0) / along.square().sum().clamp_min(1e-9)
    return _length(points - a - along * position.clamp(0, 1)) - radius


def _length(vectors: Tensor) -> Tensor:
    # torch's norm over a leading axis is an order of magnitude slower
    return vectors.square().sum(0).sqrt()


#: The solids of the primitives simulator by the name that a record gives them.
SOLIDS: dict[str, Distance] = {
    "ellipsoid": ellipsoid,
    "cuboid": cuboid,
    "cylinder": cylinder,
    "shell": shell,
}
