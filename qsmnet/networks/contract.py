"""What every network takes and gives, and what they share."""

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Geometry


class Network(Protocol):
    """Field to susceptibility, homogeneous of degree 1: f(s field, s noise) = s f(field, noise).

    A network that inverts by D itself has an attribute ``kernel``, `qsmnet.dipole.Kernel`, that
    `qsmnet.inversion.learned.LearnedInverter` sets. With an attribute ``field_of_view`` it is given
    the object's bounding box padded to that many times its size, `qsmnet.frame.Frame`, instead of
    the grid that the scan came on. An attribute ``takes_noise`` that is False says that it does not
    look at the noise; a true ``weighs_noise``, that it weighs each voxel by its own: others are
    given data without signal voids (`qsmnet.volumes.quiet_support`). One with a true attribute
    ``magnitude`` is given a sixth input, the gradient-echo magnitude in any unit, or None where
    there is none.
    """

    def forward(
        self,
        field: Float[Tensor, "batch 1 x y z"],
        support: Float[Tensor, "batch 1 x y z"],
        noise: Float[Tensor, "batch 1 x y z"],
        mask: Float[Tensor, "batch 1 x y z"],
        geometry: Sequence[Geometry],
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Susceptibility in ppm.

        Parameters
        ----------
        field
            Local field in ppm, zero where unknown.
        support
            Where the field is known, in [0, 1].
        noise
            Standard deviation of the field in ppm; 0 for none or unknown.
        mask
            1 where susceptibility is sought, else 0; it may differ from where the field is known.
        geometry
            One an item.
        """
        ...


def robust_scale(
    field: Float[Tensor, "batch 1 x y z"], support: Float[Tensor, "batch 1 x y z"]
) -> Float[Tensor, "batch 1 1 1 1"]:
    """Mean absolute field where it is known, in ppm: inputs are divided by it, outputs multiplied.

    A root mean square would follow a single calcification. At least 1e-9, so that an empty field
    gives an empty map.
    """
    axes = (-3, -2, -1)
    total = (field.abs() * support).sum(axes, keepdim=True)
    return (total / support.sum(axes, keepdim=True).clamp_min(1.0)).clamp_min(1e-9)
