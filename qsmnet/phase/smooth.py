"""Smooth phase in noisy, wrapped phase."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Geometry

# a Gaussian is sampled on voxels of at most its width over this
_SAMPLES = 2.5
# in standard deviations, where the Gaussian ends
_REACH = 3.0
# rad from the smooth phase, beyond which a voxel is an error of unwrapping or a vessel, not noise
_OUTLIER = 1.0


def smooth_phase(
    phase: Float[Tensor, "x y z"],
    weight: Float[Tensor, "x y z"],
    width: float,
    geometry: Geometry,
    passes: int,
) -> Float[Tensor, "x y z"]:
    r"""Phase in rad, up to multiples of 2 pi, that is smooth over ``width`` mm.

    .. math:: s_{n+1} = s_n + \angle\, G * \left(w e^{i(\phi - s_n)}\right), \qquad s_0 = 0

    with a Gaussian G: a weighted mean of the *complex* exponential, so that wraps do no harm. One
    pass flattens every slope where the weights end, since the mean is taken over one side only;
    each further pass smooths what the one before left over (Tukey's twicing, 1977), so that slopes
    and curvature are followed to the rim. After the first pass voxels that are more than 1 rad
    away are left out. All is done on voxels about as coarse as the width allows.

    Parameters
    ----------
    weight
        0 where the phase is unknown.
    width
        Standard deviation of G in mm.
    """
    factors = [max(1, int(width / (_SAMPLES * edge))) for edge in geometry.voxel_size]
    sigmas = [
        width / (edge * factor) for edge, factor in zip(geometry.voxel_size, factors, strict=True)
    ]
    shape = phase.shape
    pooled = _pool(_pair(weight, phase), factors)
    real, imaginary = _enlarge(_blur(pooled, sigmas), factors, shape)
    smooth = torch.atan2(imaginary, real)
    left = phase - smooth
    trusted = weight * (left.cos() > math.cos(_OUTLIER))
    pooled = _pool(_pair(trusted, left), factors)
    more = torch.zeros_like(pooled[0])
    for _ in range(passes - 1):
        real, imaginary = _blur(_turned(pooled, -more), sigmas)
        more = more + torch.atan2(imaginary, real)
    return smooth + _enlarge(more[None], factors, shape)[0]


def _pair(weight: Tensor, phase: Tensor) -> Tensor:
    return torch.stack([weight * phase.cos(), weight * phase.sin()])


def _turned(pair: Tensor, angle: Tensor) -> Tensor:
    """Pair of real and imaginary part, turned by an angle."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([pair[0] * cosine - pair[1] * sine, pair[0] * sine + pair[1] * cosine])


def _pool(volumes: Tensor, factors: list[int]) -> Tensor:
    """Mean over blocks of voxels; beyond the grid there is nothing."""
    padding = [
        end
        for n, factor in zip(reversed(volumes.shape[1:]), reversed(factors), strict=True)
        for end in (0, -n % factor)
    ]
    return F.avg_pool3d(F.pad(volumes, padding), factors)


def _enlarge(volumes: Tensor, factors: list[int], shape: torch.Size) -> Tensor:
    """Undo `_pool`, linear between the middles of blocks."""
    size = [n * factor for n, factor in zip(volumes.shape[1:], factors, strict=True)]
    fine = F.interpolate(volumes[:, None], size=size, mode="trilinear", align_corners=False)
    x, y, z = shape
    return fine[:, 0, :x, :y, :z]


def _blur(volumes: Tensor, sigmas: list[float]) -> Tensor:
    """Gaussian along each axis, of a standard deviation in voxels."""
    blurred = volumes[:, None]
    for axis, sigma in enumerate(sigmas):
        reach = int(_REACH * sigma) + 1
        steps = torch.arange(-reach, reach + 1, dtype=volumes.dtype, device=volumes.device)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[axis + 2], padding[axis] = len(steps), reach
        blurred = F.conv3d(blurred, (kernel / kernel.sum()).reshape(shape), padding=padding)
    return blurred[:, 0]
