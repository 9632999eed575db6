"""The protocol of a background field removal method."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.volumes import LocalField, TotalField


@runtime_checkable
class BackgroundRemoval(Protocol):
    """A method that takes away the field of sources outside the mask."""

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field in ppm, with the mask where it is known."""
        ...


def local_field_on(
    known: Bool[Tensor, "x y z"], field: Float[Tensor, "x y z"], total: TotalField
) -> LocalField:
    """Return what every method does: ``field`` on ``known``, zero elsewhere, the rest as given.

    The noise is that of the total field: what a method takes away is smooth, a mean over many
    voxels, and adds or removes little of it. Every method took harmonic fields away, the brain's
    own too.
    """
    return LocalField(
        field=field * known,
        mask=known,
        geometry=total.geometry,
        field_support=known,
        noise=total.noise,
        magnitude=total.magnitude,
        radians_per_ppm=total.radians_per_ppm,
        harmonic_removed=True,
    )


def no_sphere_fits(radii: Sequence[float], geometry: Geometry) -> InconsistentError:
    """Error of a method whose spheres are too large for the mask, or hold one voxel alone."""
    return InconsistentError(
        "mask",
        f"no sphere of {', '.join(f'{radius:g}' for radius in radii)} mm fits between its edge "
        f"and a voxel of {max(geometry.voxel_size):g} mm",
        "use a larger mask or other radii (--set-background)",
    )
