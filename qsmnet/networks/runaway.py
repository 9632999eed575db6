"""Corrections that a U-Net cannot have meant: found, and made again of what it is shown in part."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool3d

from qsmnet.networks.problem import Volume, rms_inside

_MOST = 3.0
_BLOCK = 8
#: In rms of the estimate, what a U-Net is shown of anything, one after another.
LIMITS = (20.0, 10.0, 5.0, 2.5)


def runs_away(estimate: Volume, corrected: Volume, mask: Volume) -> Bool[Tensor, "batch 1 1 1 1"]:
    """Whether the change of an estimate is more than it could have been wrong by, anywhere.

    More, that is, than three times the sum of its rms in the mask and of the largest estimate
    within 8 to 16 voxels. In heads and random shapes the ratio was 0.02 to 0.3, and 1.2 where noise
    was as strong as the field; where a U-Net without bounds had run away, 200.
    """
    size = rms_inside(estimate, mask)
    change, around = (
        max_pool3d((each * mask).abs(), _BLOCK, ceil_mode=True)
        for each in (corrected - estimate, estimate)
    )
    around = max_pool3d(around, 3, stride=1, padding=1)
    return (change > _MOST * (around + size)).flatten(1).any(1).reshape(-1, 1, 1, 1, 1)


def tamed(
    correct: Callable[[Tensor], Volume],
    channels: Float[Tensor, "batch channel x y z"],
    mask: Volume,
) -> tuple[Volume, str]:
    r"""Estimate as ``correct`` makes it of channels, the first of which it corrects; and a remark.

    A U-Net has no bound: spots of 50 times the rms at the edge of a mask, where a wrong field had
    been inverted faithfully, made one answer with 20 ppm half a head away. Where its
    answer `runs_away` it is asked again with channels within :math:`\pm 20`, 10, 5 and 2.5 times
    the rms of the estimate, until it does not; at last the estimate stays as it is. The remark is
    empty for a correction that was taken as it came.
    """
    estimate = channels[:, :1]
    found, remark = correct(channels), ""
    # training sees what it does
    if torch.is_grad_enabled():
        return found, remark
    wrong = runs_away(estimate, found, mask)
    for limit in LIMITS:
        if not bool(wrong.any()):
            return found, remark
        bound = limit * rms_inside(estimate, mask).clamp_min(1.0)
        shown = torch.minimum(torch.maximum(channels, -bound), bound)
        again = estimate + (correct(shown) - shown[:, :1])
        found = torch.where(wrong, again, found)
        wrong = runs_away(estimate, found, mask)
        remark = (
            f"the network was shown its estimate up to {limit:g} times its rms: of all of it"
            " it made what cannot be; look for wrong field or mask where the map is extreme"
        )
    if bool(wrong.any()):
        found = torch.where(wrong, estimate, found)
        remark = "the network's correction cannot be right and was left out: its start is the map"
    return found, remark
