"""Noise of a field from the field itself."""

from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# sd of a normal distribution over its median absolute value
_MAD_TO_SD = 1.4826
_FEWEST_VOXELS = 50


def estimate_noise(
    field: Float[Tensor, "x y z"],
    mask: Bool[Tensor, "x y z"],
) -> float:
    r"""Estimate the standard deviation of the white noise in ``field``, in its unit.

    .. math:: \sigma = 1.4826 \,\mathrm{median}|s * f|, \qquad
       s = \tfrac{1}{6^{3/2}} [1, -2, 1]_x \otimes [1, -2, 1]_y \otimes [1, -2, 1]_z

    (Immerkaer 1996, 10.1006/cviu.1996.0060, in three dimensions and with a median). The stencil is
    zero on anything linear along one axis and of unit norm, so that white noise keeps its variance;
    edges of structures are outvoted by the median. Noise that is correlated between voxels is
    underestimated. 0 where the mask is too thin to tell.

    Parameters
    ----------
    field
        Local field in ppm (or any other volume).
    mask
        Where it is data; only voxels whose 26 neighbours are inside count.
    """
    inside = torch.ones_like(mask[2:, 2:, 2:])
    response = torch.zeros_like(field[2:, 2:, 2:])
    x, y, z = inside.shape
    for offset in product(range(3), repeat=3):
        i, j, k = offset
        window = (slice(i, i + x), slice(j, j + y), slice(k, k + z))
        weight = (-2.0) ** sum(step == 1 for step in offset)
        response += weight * torch.where(mask[window], field[window], 0.0)
        inside &= mask[window]
    if int(inside.sum()) < _FEWEST_VOXELS:
        return 0.0
    return _MAD_TO_SD * float(response[inside].abs().median()) / 6**1.5
