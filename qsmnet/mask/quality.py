"""Mask from the quality of the phase."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from qsmnet.mask.mask import Evidence
from qsmnet.mask.morphology import (
    Inside,
    dilated_voxels,
    eroded_voxels,
    filled,
    largest_part,
)
from qsmnet.mask.thresholds import otsu_threshold
from qsmnet.summary import Summary


@dataclass(frozen=True)
class QualityMask:
    """Where the phase can be trusted: threshold, dilate, fill small holes, erode, largest part.

    The default mask of QSMxT (Stewart et al. 2022, 10.1002/mrm.29048), which differs in that it
    keeps every part. Scalp, muscle and marrow have good phase, too: for a brain alone see
    `ConsensusMask`.

    Parameters
    ----------
    threshold
        Of the quality, in (0, 1); None takes Otsu's over the grid.
    dilation, erosion
        In voxels, before and after holes are filled.
    largest_hole
        Largest hole that is filled, as a share of the mask.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    threshold: float | None = None
    dilation: int = 1
    largest_hole: float = 0.05
    erosion: int = 1

    summary: ClassVar[Summary] = Summary(
        cost="no FFT",
        use="Any object, by its phase: heads with skull and neck, bodies, phantoms.",
        reference="Stewart et al. 2022, 10.1002/mrm.29048",
    )

    def __post_init__(self) -> None:
        check_quality_threshold(self.threshold)
        if not min(self.dilation, self.erosion) >= 0:
            raise ValueError("dilation and erosion are numbers of voxels, not negative")
        if not 0 <= self.largest_hole <= 1:
            raise ValueError(f"largest_hole must lie in [0, 1], got {self.largest_hole}")

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Mask of the largest part of good phase.

        Raises
        ------
        UsageError
            If there is no quality of the phase.
        InconsistentError
            If nothing is left.
        """
        inside = dilated_voxels(trusted(evidence, self.threshold, "quality"), self.dilation)
        inside = eroded_voxels(filled(inside, self.largest_hole), self.erosion)
        return evidence.found(largest_part(inside))


def check_quality_threshold(threshold: float | None) -> None:
    """Refuse what is not None and not in (0, 1), with ValueError."""
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must lie in (0, 1), got {threshold}")


def trusted(evidence: Evidence, threshold: float | None, method: str) -> Inside:
    """Where the quality of the phase exceeds ``threshold``; None is Otsu's over the grid."""
    quality = evidence.phase_quality(method)
    inside: Inside = quality > (otsu_threshold(quality) if threshold is None else threshold)
    return inside
