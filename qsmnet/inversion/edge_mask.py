"""Where a magnitude has edges, which susceptibility may share: the morphology of MEDI."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.geometry import Triple
from qsmnet.inversion.gradient import difference, edges_inside


def smooth_steps(
    magnitude: Float[Tensor, "x y z"],
    support: Float[Tensor, "x y z"],
    voxel_size: Triple,
    share: float,
) -> list[Float[Tensor, "x y z"]]:
    r"""1 for each step between neighbours that is no edge of the magnitude, else 0; one an axis.

    .. math:: M_i = [\,|\partial_i m| \le t\,]

    with one t for the three axes such that ``share`` of all steps inside the support lie above
    (Liu J et al. 2012, 10.1016/j.neuroimage.2011.08.082). Derivatives are per mm. Differs from
    common codes: they count the steps above t against the number of *voxels*, so that their "90 %"
    is a share of 0.3 of the steps, and count the step at the surface of the mask, which is none of
    the object's; the share here is met exactly, not by trying thresholds 5 % apart.

    Parameters
    ----------
    magnitude
        Arbitrary unit.
    support
        1 in the object, else 0; steps that leave it are 0 in the result.
    voxel_size
        In mm.
    share
        In [0, 1). 0 spares none.
    """
    inside = [edges_inside(support, axis) for axis in range(3)]
    if share <= 0:
        return inside
    slopes = [difference(magnitude, axis).abs_().div_(voxel_size[axis]) for axis in range(3)]
    threshold = _above(slopes, [each > 0 for each in inside], share)
    return [each * (slope <= threshold) for each, slope in zip(inside, slopes, strict=True)]


def _above(slopes: list[Tensor], inside: list[Bool[Tensor, "x y z"]], share: float) -> Tensor:
    """Value that ``share`` of the slopes inside exceed."""
    found = torch.cat([slope[where] for slope, where in zip(slopes, inside, strict=True)])
    if not found.numel():
        return found.new_zeros(())
    rank = min(found.numel(), max(1, round((1 - share) * found.numel())))
    return found.kthvalue(rank).values
