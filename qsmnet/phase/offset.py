"""The protocol of a phase offset removal."""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from qsmnet.summary import Summary
from qsmnet.volumes import Scan


@runtime_checkable
class OffsetRemoval(Protocol):
    """A method that estimates the phase at TE = 0; configure it by its fields, then call it."""

    summary: ClassVar[Summary]

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Scan:
        """Scan without its phase offset, as far as its echoes tell it; the phase stays wrapped."""
        ...
