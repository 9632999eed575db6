"""One protocol for every dipole inversion, classical or learned."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

from qsmnet.volumes import LocalField, Susceptibility, TotalField

#: What a method declares to take: one local field, one total field, or one an orientation.
Input = Literal["local_field", "total_field", "local_fields"]


@runtime_checkable
class Inverter(Protocol):
    """Local field to susceptibility: configure a method by its fields, then call it."""

    takes: ClassVar[Input]

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Susceptibility in ppm, zero outside the mask; its mean is the method's own."""
        ...


class TotalFieldInverter(Protocol):
    """A single-step method: background removal and inversion in one."""

    takes: ClassVar[Input]

    def __call__(self, total: TotalField, /) -> Susceptibility:
        """Susceptibility in ppm, zero outside the mask."""
        ...


class MultiOrientationInverter(Protocol):
    """A method that needs the object at several orientations, all on one grid."""

    takes: ClassVar[Input]

    def __call__(self, locals_: Sequence[LocalField], /) -> Susceptibility:
        """Susceptibility in ppm, zero outside the mask."""
        ...
