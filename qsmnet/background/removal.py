"""The protocol of a background field removal method."""

from typing import Protocol, runtime_checkable

from qsmnet.volumes import LocalField, TotalField


@runtime_checkable
class BackgroundRemoval(Protocol):
    """A method that takes away the field of sources outside the mask."""

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field in ppm, with the mask where it is known."""
        ...
