"""Object mask from the magnitude by a robust threshold."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from qsmnet.mask.mask import Evidence, finite
from qsmnet.mask.morphology import solid_part
from qsmnet.mask.thresholds import robust_threshold
from qsmnet.summary import Summary


@dataclass(frozen=True)
class MagnitudeMask:
    r"""Robust threshold, opening, largest connected part, holes filled, erosion.

    .. math:: m > s \max(5\,\bar m_{\le q_{15}},\ \bar m_{q_{80} \ldots q_{99}} / 5)

    the noise-or-signal rule of MriResearchTools' ``robustmask``, by majority over ``smoothing`` mm.
    The opening cuts the bridges between brain and scalp; it is no brain
    extraction: the skull's marrow or eyes may stay. For a patch without background use `WholeMask`.

    Parameters
    ----------
    strength
        s; larger is stricter.
    smoothing
        Standard deviation of the Gaussian in mm; 0 is none.
    opening
        Radius in mm; 0 is none.
    erosion
        Radius in mm taken off in the end; 0 is none.

    Raises
    ------
    ValueError
        If ``strength`` is not positive or a length is negative.
    """

    strength: float = 1.0
    smoothing: float = 1.0
    opening: float = 2.5
    erosion: float = 1.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT",
        use="Any object that is brighter than its surroundings, a phantom or a part of a head.",
        reference="Eckstein et al. 2021, 10.1016/j.neuroimage.2021.118175 (MriResearchTools)",
    )

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise ValueError(f"strength must be positive, got {self.strength}")
        lengths = (self.smoothing, self.opening, self.erosion)
        if not all(length >= 0 for length in lengths):
            raise ValueError("smoothing, opening and erosion are lengths in mm, not negative")

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Mask of the largest bright object; NaN counts as background.

        Raises
        ------
        InconsistentError
            If nothing is left.
        """
        edges, values = evidence.geometry.voxel_size, finite(evidence.magnitude)
        bright = values > self.strength * robust_threshold(values)
        # a majority in the neighbourhood: averaging the magnitude itself would grow the object
        sigma = [self.smoothing / edge for edge in edges]
        inside = ndimage.gaussian_filter(bright.astype(np.float32), sigma) > 0.5
        return evidence.found(solid_part(inside, edges, self.opening, self.erosion))
