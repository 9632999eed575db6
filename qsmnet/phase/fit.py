"""The protocol of a field fit."""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.summary import Summary
from qsmnet.volumes import Scan, TotalField


@runtime_checkable
class Fit(Protocol):
    """A method that makes one field of several echoes; configure it by its fields, then call it."""

    summary: ClassVar[Summary]

    def __call__(
        self, scan: Scan, unwrapped: Float[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"], /
    ) -> TotalField:
        """Field and the standard deviation of its noise in ppm, zero outside the mask.

        ``unwrapped`` is the phase of ``scan`` with the multiples of 2 pi that were missing. Where
        the scan's offset was removed the phase is taken to be proportional to the echo time.
        """
        ...
