"""What can be wrong with a mask that is given, beside its grid: things to say, not to refuse."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from qsmnet.mask.mask import finite

# shares of the grid; a brain in a head-sized grid has about a fifth
_WHOLE, _TINY = 0.98, 0.002
# share of a mask's voxels that is no longer a speck
_PART = 0.01


def mask_flags(
    mask: Bool[Tensor, "x y z"], magnitude: Float[Tensor, "x y z"] | None = None
) -> tuple[str, ...]:
    """Say in words what looks wrong with a mask: whole or tiny, in parts, or beside the object."""
    inside = mask.cpu().numpy()
    share = float(inside.mean())
    if share > _WHOLE:
        return (f"the mask covers {100 * share:.0f} % of the grid: air in it would spoil the map",)
    flags = []
    if share < _TINY:
        flags.append(f"the mask covers {100 * share:.2g} % of the grid: is it the right file?")
    parts = _parts(inside)
    if parts > 1:
        flags.append(
            f"the mask is in {parts} parts that do not touch: their susceptibilities share no zero"
        )
    if magnitude is not None and _beside(inside, finite(magnitude)):
        flags.append(
            "the magnitude is no brighter in the mask than outside: the mask may be flipped, "
            "shifted or inverted"
        )
    return tuple(flags)


def _parts(inside: np.ndarray) -> int:
    labels, _ = ndimage.label(inside)
    sizes = np.bincount(labels.ravel())[1:]
    return int((sizes > _PART * inside.sum()).sum())


def _beside(inside: np.ndarray, magnitude: np.ndarray) -> bool:
    return float(np.median(magnitude[inside])) <= float(np.median(magnitude[~inside]))
