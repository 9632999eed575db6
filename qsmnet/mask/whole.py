"""The whole grid as object."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from qsmnet.mask.mask import Evidence
from qsmnet.summary import Summary


@dataclass(frozen=True)
class WholeMask:
    """Every voxel: for a patch that was cut out of an object and has no background."""

    summary: ClassVar[Summary] = Summary(
        cost="no FFT", use="A patch of an object, without background.", reference="none"
    )

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """All true."""
        return torch.ones_like(evidence.magnitude, dtype=torch.bool)
