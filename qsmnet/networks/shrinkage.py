"""Last step of a network: small unrest of an estimate is shrunk, edges are kept."""

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Triple
from qsmnet.inversion.gradient import add_adjoint, difference, edges_inside
from qsmnet.inversion.slabs import Slabs
from qsmnet.networks.problem import Problem, Volume

_AXES = range(3)
_ITERATIONS = 10
# of the strength in mm: without noise, and times the noise's level; see docs/networks.md
_STILL, _NOISY = 0.05, 0.4


def shrunk(problem: Problem, chi: Volume) -> Volume:
    r"""Estimate of chi / s, less what total variation takes for unrest.

    .. math:: \arg\min_x \tfrac12 \sum_{mask} (x - \chi)^2
       + \lambda \sum_{mask} |\nabla x|, \qquad \lambda = 0.05 + 0.4\, \bar\sigma / s,

    derivatives per mm. A U-Net leaves a few ppb of unrest where susceptibility is uniform, and a
    classical start of few iterations some of the data's noise; a region of radius r changes by
    about :math:`3 \lambda / r`, one of its edges by nothing. To the gradient of a training it is
    the identity.

    Parameters
    ----------
    problem
        Noise level, mask and voxel sizes.
    chi
        Over the problem's scale, zero outside the mask.
    """
    with torch.no_grad():
        strength = (_STILL + _NOISY * problem.level).flatten().tolist()
        items = zip(chi[:, 0], problem.mask[:, 0], problem.geometry, strength, strict=True)
        calm = [
            total_variation_denoised(each.float(), mask, geometry.voxel_size, wanted)
            for each, mask, geometry, wanted in items
        ]
        change = torch.stack(calm)[:, None].to(chi) - chi
    return chi + change


def total_variation_denoised(
    volume: Float[Tensor, "x y z"],
    mask: Float[Tensor, "x y z"],
    voxel_size: Triple,
    strength: float,
    iterations: int = _ITERATIONS,
) -> Float[Tensor, "x y z"]:
    r"""Minimum over x of :math:`\tfrac12 \sum (x - v)^2 + \lambda \sum |\nabla x|` in the mask.

    By the accelerated projected gradient of its dual (Beck & Teboulle 2009,
    10.1109/TIP.2009.2028250), :math:`x = v - \nabla^T q` with :math:`|q| \le \lambda`, which keeps
    the mean of every connected part of the mask. Differences are those of neighbours in the mask,
    over the voxel's edge.

    Parameters
    ----------
    volume
        v, zero outside the mask.
    mask
        1 inside, else 0.
    voxel_size
        In mm.
    strength
        :math:`\lambda`, in the unit of v times mm.
    iterations
        Fixed, so that the result goes with the scale of v and strength.
    """
    edges = [edges_inside(mask, axis).div_(voxel_size[axis]) for axis in _AXES]
    step = 1 / (4 * sum(size**-2 for size in voxel_size))
    dual = [torch.zeros_like(volume) for _ in _AXES]
    ahead = [torch.zeros_like(volume) for _ in _AXES]
    found, slabs = torch.empty_like(volume), Slabs(volume, scratch=4)
    momentum = 1.0
    for _ in range(iterations):
        _primal(found, volume, ahead, edges, slabs)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        push, momentum = (momentum - 1) / following, following
        for slab in slabs:
            *trial, size = slabs.scratch(slab)
            size.zero_()
            for axis in _AXES:
                difference(found, axis, trial[axis], slab).mul_(edges[axis][slab])
                torch.add(ahead[axis][slab], trial[axis], alpha=step, out=trial[axis])
                size.addcmul_(trial[axis], trial[axis])
            # at most lambda long
            size.sqrt_().clamp_min_(strength).reciprocal_().mul_(strength)
            for axis in _AXES:
                new, old = trial[axis].mul_(size), dual[axis][slab]
                torch.lerp(old, new, 1 + push, out=ahead[axis][slab])
                old.copy_(new)
    _primal(found, volume, dual, edges, slabs)
    return found


def _primal(
    found: Tensor, volume: Tensor, dual: list[Tensor], edges: list[Tensor], slabs: Slabs
) -> None:
    """Write ``v - grad^T q``."""
    found.copy_(volume)
    for slab in slabs:
        work, *_ = slabs.scratch(slab)
        for axis in _AXES:
            torch.mul(dual[axis][slab], edges[axis][slab], out=work)
            add_adjoint(found, work, axis, -1.0, slab)
