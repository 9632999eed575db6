"""A simulated scene: phantom, field, noise, and the record that makes it again."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qsmnet.dipole import Kernel
from qsmnet.geometry import Geometry
from qsmnet.simulate.phantom import Record
from qsmnet.volumes import LocalField


@dataclass(frozen=True)
class Scene:
    """Susceptibility with its local field and known noise.

    Parameters
    ----------
    chi
        ``(x, y, z)`` in ppm, zero outside ``mask``.
    mask
        Support of chi.
    segmentation
        Labels of `qsmnet.simulate.tissue`.
    local_field
        In ppm, with noise, zero where ``field_support`` is.
    local_field_exact
        In ppm, without noise, on the whole grid.
    noise
        Standard deviation of the noise in ppm, a map.
    field_support
        Where the field is known: ``mask``, or everywhere for an unmasked scene.
    geometry
        Voxel size and B0 direction.
    record
        Plain JSON from which `Simulator.render` makes the same scene.
    kernel
        Of the dipole that made the field.
    """

    chi: Float[Tensor, "x y z"]
    mask: Bool[Tensor, "x y z"]
    segmentation: UInt8[Tensor, "x y z"]
    local_field: Float[Tensor, "x y z"]
    local_field_exact: Float[Tensor, "x y z"]
    noise: Float[Tensor, "x y z"]
    field_support: Bool[Tensor, "x y z"]
    geometry: Geometry
    record: Record
    kernel: Kernel

    def as_local_field(self) -> LocalField:
        """Return what an inverter is given: never the truth."""
        return LocalField(
            field=self.local_field,
            mask=self.mask,
            geometry=self.geometry,
            field_support=self.field_support,
            noise=self.noise if bool((self.noise > 0).any()) else None,
        )
