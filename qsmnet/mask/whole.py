"""The whole grid as object."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.geometry import Geometry


@dataclass(frozen=True)
class WholeMask:
    """Every voxel: for a patch that was cut out of an object and has no background."""

    def __call__(
        self,
        magnitude: Float[Tensor, "x y z"],
        geometry: Geometry,  # noqa: ARG002 - part of the protocol
        /,
    ) -> Bool[Tensor, "x y z"]:
        """All true."""
        return torch.ones_like(magnitude, dtype=torch.bool)
