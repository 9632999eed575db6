"""The protocol of a masking method."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.geometry import Geometry


@runtime_checkable
class Mask(Protocol):
    """A method that finds the object; configure it by its fields, then call it."""

    def __call__(
        self, magnitude: Float[Tensor, "x y z"], geometry: Geometry, /
    ) -> Bool[Tensor, "x y z"]:
        """Where the object is."""
        ...
