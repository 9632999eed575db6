"""The protocol of a phase unwrapping method."""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.geometry import Geometry


@runtime_checkable
class Unwrap(Protocol):
    """A method that adds what wrapping took; configure it by its fields, then call it."""

    #: True when the result differs from the wrapped phase by multiples of 2 pi and nothing else.
    exact: ClassVar[bool]

    def __call__(
        self,
        wrapped: Float[Tensor, "echo x y z"],
        mask: Bool[Tensor, "x y z"],
        geometry: Geometry,
        /,
    ) -> Float[Tensor, "echo x y z"]:
        """Unwrapped phase in rad, each volume by itself, zero outside the mask."""
        ...
