"""Brain and good phase: the mask of the consensus on QSM."""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from qsmnet.mask.bet import Bet
from qsmnet.mask.mask import Evidence, Mask
from qsmnet.mask.morphology import eroded_voxels, filled, largest_part
from qsmnet.mask.quality import check_quality_threshold, trusted
from qsmnet.summary import Summary


@dataclass(frozen=True)
class ConsensusMask:
    """Brain extraction and phase quality, holes filled, eroded (QSM consensus 2024, MRM 91:1834).

    The consensus (10.1002/mrm.30006) asks for a brain mask without the voxels at its rim whose
    phase is not reliable. Holes inside are filled: they are strong sources, such as bleeds and
    calcifications. A rim of noise stays out.

    Parameters
    ----------
    brain
        Method that finds the brain; `Bet` at a fraction of 0.5 on the first echo.
    threshold
        Of the quality, in (0, 1); None takes Otsu's over the grid.
    erosion
        In voxels.

    Raises
    ------
    ValueError
        If the threshold or the erosion is out of range.
    """

    brain: Mask = field(default_factory=Bet)
    threshold: float | None = None
    erosion: int = 1

    summary: ClassVar[Summary] = Summary(
        cost="that of the brain extraction",
        use="A head from its raw phase, as the consensus recommends.",
        reference="QSM Consensus Organization Committee 2024, 10.1002/mrm.30006",
    )

    def __post_init__(self) -> None:
        check_quality_threshold(self.threshold)
        if not self.erosion >= 0:
            raise ValueError("erosion is a number of voxels, not negative")

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Largest part of brain with good phase.

        Raises
        ------
        UsageError
            If there is no quality of the phase.
        InconsistentError
            If nothing is left.
        """
        good = trusted(evidence, self.threshold, "consensus")
        brain = self.brain(evidence).cpu().numpy()
        return evidence.found(largest_part(eroded_voxels(filled(good & brain), self.erosion)))
