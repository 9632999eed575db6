"""One correction of several mirrored views of the same maps."""

from jaxtyping import Float
from torch import Tensor, nn

_Axes = tuple[int, ...]

_POINT: _Axes = (-3, -2, -1)
_IN_THE_SLICE, _ACROSS = (-3, -2), (-1,)
#: Axes that are mirrored, and whether the first two then change places. Each leaves a cone about
#: the third axis as it is, and the first 2, 4 and all are groups: the mean has their symmetry.
_ALL: tuple[tuple[_Axes, bool], ...] = (
    ((), False),
    (_POINT, False),
    ((), True),
    (_POINT, True),
    (_IN_THE_SLICE, False),
    (_ACROSS, False),
    (_IN_THE_SLICE, True),
    (_ACROSS, True),
)
VIEWS = (1, 2, 4, 8)


def averaged(
    prior: nn.Module, channels: Float[Tensor, "batch channel x y z"], views: int
) -> Float[Tensor, "batch 1 x y z"]:
    """Mean of what a U-Net makes of the first so many views, each turned back.

    Training shows crops at random in all of these views, and no direction about B0 is different
    from another; what a U-Net makes of one view and not of another is an error of its own
    (self-ensemble: Lim et al. 2017, 10.1109/CVPRW.2017.151).

    Parameters
    ----------
    prior
        The U-Net.
    channels
        What it is given, with B0 along the third axis.
    views
        One of `VIEWS`; so many times the work.
    """
    total: Tensor | None = None
    for axes, exchanged in _ALL[:views]:
        seen = channels.flip(axes) if axes else channels
        found: Tensor = prior(seen.transpose(-3, -2) if exchanged else seen)
        found = found.transpose(-3, -2) if exchanged else found
        found = found.flip(axes) if axes else found
        total = found if total is None else total + found
    assert total is not None  # noqa: S101
    return total / views
