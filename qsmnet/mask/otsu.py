"""Object mask from the magnitude by Otsu's threshold."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from qsmnet.mask.bias import fit_bias
from qsmnet.mask.mask import Evidence, finite
from qsmnet.mask.morphology import solid_part
from qsmnet.mask.thresholds import otsu_threshold, robust_threshold
from qsmnet.summary import Summary

_BRIGHTEST = 0.95


@dataclass(frozen=True)
class OtsuMask:
    """Otsu's threshold of the magnitude (1979, 10.1109/TSMC.1979.4310076) in 256 bins.

    Differs from the paper: what exceeds the 95th percentile counts as that, so that bright fat is
    no class of its own, and what the coils add is divided out before: a polynomial in the logarithm
    of what exceeds the robust threshold of `MagnitudeMask`. Of the rest the largest part, opened,
    holes filled, eroded. It finds the head, or an object; no brain extraction. Where everything is
    tissue, as in a patch, it splits tissue.

    Parameters
    ----------
    bias_order
        Degree of the polynomial; 0 leaves the magnitude as it is.
    opening
        Radius in mm; 0 is none.
    erosion
        Radius in mm taken off in the end; 0 is none.

    Raises
    ------
    ValueError
        If the degree is not 0 to 3 or a length is negative.
    """

    bias_order: int = 2
    opening: float = 2.5
    erosion: float = 1.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT",
        use="Two classes of brightness: an object in air, a head with scalp.",
        reference="Otsu 1979, 10.1109/TSMC.1979.4310076",
    )

    def __post_init__(self) -> None:
        if self.bias_order not in range(4):
            raise ValueError(f"bias_order must be 0 to 3, got {self.bias_order}")
        if not all(length >= 0 for length in (self.opening, self.erosion)):
            raise ValueError("opening and erosion are lengths in mm, not negative")

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Mask of the largest bright object; NaN counts as background.

        Raises
        ------
        InconsistentError
            If nothing is left.
        """
        values = finite(evidence.magnitude)
        bright = values > robust_threshold(values)
        if self.bias_order and bright.any():
            values = values / fit_bias(values, bright, self.bias_order)
        # a few vessels or a bright scalp would be a class of their own
        inside = values > otsu_threshold(np.minimum(values, np.quantile(values, _BRIGHTEST)))
        edges = evidence.geometry.voxel_size
        return evidence.found(solid_part(inside, edges, self.opening, self.erosion))
