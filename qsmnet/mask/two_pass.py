"""Two masks and two maps: strong sources stay in the map, and their errors out of the rest."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from qsmnet.mask.bet import Bet
from qsmnet.mask.mask import Evidence, Mask, MaskPair
from qsmnet.mask.morphology import closed, filled, largest_part
from qsmnet.mask.quality import check_quality_threshold, trusted
from qsmnet.summary import Summary
from qsmnet.volumes import Susceptibility


@dataclass(frozen=True)
class TwoPassMask:
    """A reliable mask with holes at strong sources, and the filled one (Stewart et al. 2022).

    The phase beside a bleed or a calcification is wrong, and its streaks reach far. One pass
    reconstructs the filled mask; a second one leaves the holes out, and replaces the map where it
    is reliable: `combine_two_pass` (QSMxT's two-pass artefact reduction, 10.1002/mrm.29048).
    Differs from QSMxT, which takes the whole head: both masks lie within the object, and bays that
    sources cut into its rim are filled by closing.

    Parameters
    ----------
    object
        Method that finds the object; nothing lies outside of it.
    threshold
        Of the quality, in (0, 1); None takes Otsu's over the grid.
    closing
        Radius in mm of the closing that fills; 0 fills enclosed holes alone.

    Raises
    ------
    ValueError
        If the threshold or the closing is out of range.
    """

    object: Mask = field(default_factory=Bet)
    threshold: float | None = None
    closing: float = 5.0

    summary: ClassVar[Summary] = Summary(
        cost="that of the object's mask; background removal and inversion run twice",
        use="Strong sources whose streaks spoil the map: bleeds, calcifications, metal.",
        reference="Stewart et al. 2022, 10.1002/mrm.29048",
    )

    def __post_init__(self) -> None:
        check_quality_threshold(self.threshold)
        if not self.closing >= 0:
            raise ValueError("closing is a length in mm, not negative")

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Give the filled mask; see `pair`."""
        return self.pair(evidence).filled

    def pair(self, evidence: Evidence, /) -> MaskPair:
        """Both masks.

        Raises
        ------
        UsageError
            If there is no quality of the phase.
        InconsistentError
            If nothing is left.
        """
        whole = self.object(evidence).cpu().numpy()
        reliable = largest_part(whole & trusted(evidence, self.threshold, "two_pass"))
        around = closed(reliable, self.closing, evidence.geometry.voxel_size) & whole
        return MaskPair(evidence.found(filled(around)), evidence.found(reliable))


def combine_two_pass(whole: Susceptibility, reliable: Susceptibility) -> Susceptibility:
    """Map of the filled mask, replaced by that of the reliable one where there is one.

    A map's zero is arbitrary, and each pass has its own: the reliable map moves by the median
    difference where both are known. Mask, reference and flags are those of the filled map; the
    uncertainty is combined like the maps where both passes have one.
    """
    both = whole.mask & reliable.mask
    if not bool(both.any()):
        return whole
    shift = (whole.chi - reliable.chi)[both].median()
    chi = torch.where(both, reliable.chi + shift, whole.chi)
    uncertainty = whole.uncertainty
    if uncertainty is not None and reliable.uncertainty is not None:
        uncertainty = torch.where(both, reliable.uncertainty, uncertainty)
    return replace(whole, chi=chi, uncertainty=uncertainty)
