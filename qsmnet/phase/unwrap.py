"""The protocol of a phase unwrapping method."""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.summary import Summary
from qsmnet.volumes import Scan


@runtime_checkable
class Unwrap(Protocol):
    """A method that adds what wrapping took; configure it by its fields, then call it."""

    #: True when the result differs from the wrapped phase by multiples of 2 pi and nothing else.
    exact: ClassVar[bool]
    summary: ClassVar[Summary]

    def __call__(
        self, scan: Scan, mask: Bool[Tensor, "x y z"], /, count: int | None = None
    ) -> Float[Tensor, "echo x y z"]:
        """Unwrapped phase in rad of the first ``count`` echoes (all), zero outside the mask.

        Each echo is unwrapped in space.

        Magnitude and the other echoes may tell which voxels to trust; the multiples of 2 pi of one
        echo say nothing of those of another, nor do those of parts of the mask that do not touch.
        """
        ...
