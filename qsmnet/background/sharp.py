r"""Background removal by spherical means of one radius."""

import math
from dataclasses import dataclass
from typing import ClassVar

from qsmnet.background.vsharp import VSharp
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, TotalField


@dataclass(frozen=True)
class Sharp:
    r"""SHARP: a harmonic field equals its mean over any sphere.

    Schweser et al. 2011, 10.1016/j.neuroimage.2010.10.070. With S the mean over a sphere and E the
    mask eroded by its radius,

    .. math:: b = E\, F^{-1} \frac{F[E (1 - S) f]}{1 - \hat S},
       \qquad \text{0 where } |1 - \hat S| < t

    `VSharp` of one radius, where the ways in which the code differs from most are told.

    Parameters
    ----------
    radius
        In mm.
    threshold
        t; larger removes more low frequencies, of the local field too.

    Raises
    ------
    ValueError
        If the radius is not positive or the threshold is outside (0, 1).
    """

    radius: float = 6.0
    threshold: float = 0.05

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs",
        use="The first of its kind; the others of its kind keep more of mask and field.",
        reference="Schweser et al. 2011, 10.1016/j.neuroimage.2010.10.070",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius is in mm and positive, got {self.radius}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie in (0, 1), got {self.threshold}")

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field on the mask eroded by the radius; noise and magnitude are passed on.

        Raises
        ------
        InconsistentError
            If no sphere fits into the mask, or it holds one voxel alone.
        """
        return VSharp((self.radius,), self.threshold)(total)
