"""What a head is painted on: susceptibility, signal, labels and the brain, at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.simulate import tissue
from qsmnet.simulate.brain import BrainCanvas
from qsmnet.simulate.grid import WHOLE, Grid, Window, paint
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.simulate.head.tissues import TISSUES
from qsmnet.simulate.phantom import Record


@dataclass(frozen=True)
class Look:
    """What a tissue is painted with: ppm, signal at TE = 0, and R2 in 1/s, no susceptibility."""

    label: int
    chi: float
    amplitude: float
    r2: float


def looks(chi: Mapping[str, float], protocol: Protocol) -> dict[str, Look]:
    """By tissue, how it looks to a protocol at the susceptibilities ``chi`` (ppm)."""
    return {
        name: Look(
            each.label,
            chi[name],
            each.density * protocol.steady_state(each.r1(protocol.b0)),
            each.r2(protocol.b0),
        )
        for name, each in TISSUES.items()
    }


class HeadCanvas(BrainCanvas):
    """Channels of a head, each the mean over the tissues of a voxel; it starts as nothing.

    Parameters
    ----------
    record
        ``placement`` and ``softness``.
    grid
        A slab of the fine grid.
    palette
        From `looks`.
    """

    def __init__(self, record: Record, grid: Grid, palette: Mapping[str, Look]) -> None:
        super().__init__({**record, "chi": {}}, grid)
        self.palette = palette
        self.amplitude: Float[Tensor, "x y z"] = torch.zeros_like(self.chi)
        #: R2 weighted by the amplitude: what has no signal has no R2.
        self.weighted_r2: Float[Tensor, "x y z"] = torch.zeros_like(self.chi)
        #: Share of the voxel that is brain, its fluid included.
        self.brain: Float[Tensor, "x y z"] = torch.zeros_like(self.chi)
        #: Share of the voxel that overlays may change.
        self.limit: Float[Tensor, "x y z"] = torch.ones_like(self.chi)
        self._largest: Float[Tensor, "x y z"] = torch.zeros_like(self.chi)

    def tissue(self, label: int, distance: Tensor) -> None:
        """Paint a tissue of the brain by its label where ``distance`` (mm) is negative."""
        self.cover(tissue.NAMES[label], self.coverage(distance))

    def cover(
        self, name: str, weight: Tensor, window: Window = WHOLE, chi: float | None = None
    ) -> None:
        """Paint a tissue over what is there; ``chi`` (ppm) replaces the tissue's own."""
        look = self.palette[name]
        self.blend(look.label, weight, look.chi if chi is None else chi, window)

    def blend(
        self, label: int | None, weight: Tensor, value: Tensor | float, window: Window = WHOLE
    ) -> None:
        """Paint a susceptibility, and the signal of the label's tissue, within ``limit``."""
        weight = weight * self.limit[window]
        super().blend(label, weight, value, window)
        if label is None:
            return
        look = self.palette[tissue.NAMES[label]]
        paint(self.amplitude[window], weight, look.amplitude)
        paint(self.weighted_r2[window], weight, look.amplitude * look.r2)

    def add(self, name: str, share: Float[Tensor, "x y z"]) -> None:
        """Add a tissue that fills ``share`` of each voxel; all shares of a voxel make one."""
        look = self.palette[name]
        self.chi.add_(share, alpha=look.chi)
        self.amplitude.add_(share, alpha=look.amplitude)
        self.weighted_r2.add_(share, alpha=look.amplitude * look.r2)
        larger = share > self._largest
        self.segmentation[larger] = look.label
        torch.maximum(self._largest, share, out=self._largest)
