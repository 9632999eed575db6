r"""Background removal by a field that equals its spherical means."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsmnet.background.crop import Crop
from qsmnet.background.depth import depth_in_mask
from qsmnet.background.removal import local_field_on, no_sphere_fits
from qsmnet.background.spheres import sphere_spectrum
from qsmnet.conjugate_gradient import conjugate_gradient
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, TotalField


@dataclass(frozen=True)
class Ismv:
    r"""iSMV: the background is the field that equals its means over spheres, and f in the rim.

    Wen et al. 2014, 10.1002/mrm.24998. The paper repeats
    :math:`h \leftarrow E S h + (M - E) f` until h no longer changes, M being the mask and E the
    mask eroded by the spheres' radius; the local field is f - h. Here its limit is solved for,

    .. math:: (1 - E S E)\, b = E (1 - S) f

    by conjugate gradients, in a tenth of the iterations. Spheres as in `VSharp`. The local field is
    zero in the rim by construction, wrongly so; it is said to be known on E alone.

    Parameters
    ----------
    radius
        In mm.
    tolerance, max_iterations
        Conjugate gradients end when the residual has fallen by ``tolerance``; at most this often.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    radius: float = 4.0
    tolerance: float = 0.01
    max_iterations: int = 200

    summary: ClassVar[Summary] = Summary(
        cost="1 FFT pair an iteration, 10 to 20 iterations",
        use="Where the field in the mask's rim is trusted; what is local there is taken away.",
        reference="Wen et al. 2014, 10.1002/mrm.24998",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius is in mm and positive, got {self.radius}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < 1:
            raise ValueError("max_iterations is at least 1, tolerance at least 0 and below 1")

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field on the mask eroded by the radius; noise and magnitude are passed on.

        Raises
        ------
        InconsistentError
            If no sphere fits into the mask, or it holds one voxel alone.
        """
        geometry = total.geometry
        # means are taken where the sphere lies in the mask: nothing wraps around
        crop = Crop.of(total.mask, 0.0, geometry)
        depth = crop.pad(depth_in_mask(total.mask[crop.box], geometry, self.radius))
        known = (depth > self.radius).float()
        if self.radius < max(geometry.voxel_size) or not bool(known.any()):
            raise no_sphere_fits((self.radius,), geometry)
        highpass = 1.0 - sphere_spectrum(crop.shape, self.radius, geometry, total.field.device)

        def operator(volume: Tensor) -> Tensor:
            return crop.filter(volume, highpass).mul_(known)

        wanted = operator(crop.take_inside(total))
        local = conjugate_gradient(operator, wanted, self.max_iterations, self.tolerance)
        return local_field_on(crop.put(known, total.mask) > 0, crop.put(local, total.mask), total)
