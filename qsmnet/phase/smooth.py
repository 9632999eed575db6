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

    .. math:: s_{n+1} = s_n + \angle\, G * \left(w_n e^{i(\phi - s_n)}\right)

    with a Gaussian G: a weighted mean of the *complex* exponential, so that wraps do no harm. One
    pass flattens a slope where the weights end, since the mean is taken over one side only; each
    further pass smooths what the one before left over (Tukey's twicing, 1977) and leaves out voxels
    that are more than 1 rad away.

    Parameters
    ----------
    weight
        0 where the phase is unknown.
    width
        Standard deviation of G in mm.
    """
    smooth = torch.zeros_like(phase)
    for number in range(passes):
        left = phase - smooth
        trusted = weight if number == 0 else weight * (left.cos() > math.cos(_OUTLIER))
        pair = torch.stack([trusted * left.cos(), trusted * left.sin()])
        real, imaginary = _gaussian(pair, width, geometry)
        smooth = smooth + torch.atan2(imaginary, real)
    return smooth


def _gaussian(volumes: Tensor, width: float, geometry: Geometry) -> Tensor:
    """Gaussian of every volume, on a coarser grid where it does not need a finer one."""
    edges, shape = geometry.voxel_size, volumes.shape[1:]
    factors = [max(1, int(width / (_SAMPLES * edge))) for edge in edges]
    padding = [end for n, f in zip(shape[::-1], factors[::-1], strict=True) for end in (0, -n % f)]
    padded = F.pad(volumes, padding)[:, None]
    coarse = F.avg_pool3d(padded, factors)
    for axis, (edge, factor) in enumerate(zip(edges, factors, strict=True)):
        coarse = _blur(coarse, axis, width / (edge * factor))
    fine = F.interpolate(coarse, size=padded.shape[2:], mode="trilinear", align_corners=False)
    x, y, z = shape
    return fine[:, 0, :x, :y, :z]


def _blur(volumes: Tensor, axis: int, sigma: float) -> Tensor:
    reach = int(_REACH * sigma) + 1
    steps = torch.arange(-reach, reach + 1, dtype=volumes.dtype, device=volumes.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
    shape[axis + 2], padding[axis] = len(steps), reach
    return F.conv3d(volumes, (kernel / kernel.sum()).reshape(shape), padding=padding)
