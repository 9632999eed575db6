r"""Background removal by spherical means, regularised instead of truncated."""

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

# of the preconditioner: 1e-4 to 1e-1 tried on two heads, fewest FFT pairs
_SHIFT = 1e-3


@dataclass(frozen=True)
class Resharp:
    r"""RESHARP: the smallest field that differs from its spherical means as the total field does.

    Sun & Wilman 2014, 10.1002/mrm.24765. With S the mean over a sphere and E the mask eroded by its
    radius,

    .. math:: \min_b\ \|E (1 - S)(b - f)\|^2 + \lambda \|b\|^2

    Differs from the paper and common codes: with :math:`b = (1 - S) E u` the same minimum is that
    of :math:`(E (1 - S)^2 E + \lambda)\, u = E (1 - S) f`, whose operator is one convolution of a
    masked volume, one FFT pair instead of two. Conjugate gradients are conditioned by the same
    convolution undone on the whole grid, which takes a quarter of the FFT pairs. Spheres as in
    `VSharp`. As :math:`\lambda` goes to
    zero this takes the projection of the field onto harmonic fields away, which is the limit of
    PDF with equal weights.

    Parameters
    ----------
    radius
        In mm. Larger keeps less of the mask and is more accurate within.
    regularisation
        :math:`\lambda`, without unit: it does not change with that of the field. Larger takes more
        of the local field.
    tolerance, max_iterations
        Conjugate gradients end when the residual has fallen by ``tolerance``; at most this often.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    radius: float = 4.0
    regularisation: float = 1e-4
    tolerance: float = 0.03
    max_iterations: int = 100

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 20 to 25 iterations",
        use="The most accurate of its kind, where the loss of the mask's rim can be borne.",
        reference="Sun & Wilman 2014, 10.1002/mrm.24765",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius is in mm and positive, got {self.radius}")
        if not 0 < self.regularisation < math.inf:
            raise ValueError(f"regularisation must be positive, got {self.regularisation}")
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
        crop = Crop.of(total.mask, self.radius, geometry)
        depth = crop.pad(depth_in_mask(total.mask[crop.box], geometry, self.radius))
        known = (depth > self.radius).float()
        if self.radius < max(geometry.voxel_size) or not bool(known.any()):
            raise no_sphere_fits((self.radius,), geometry)
        highpass = 1.0 - sphere_spectrum(crop.shape, self.radius, geometry, total.field.device)
        field = crop.take_inside(total)
        local = self._solve(field, known, highpass, crop)
        return local_field_on(crop.put(known, total.mask) > 0, crop.put(local, total.mask), total)

    def _solve(self, field: Tensor, known: Tensor, highpass: Tensor, crop: Crop) -> Tensor:
        twice = highpass.square()

        inverse = (twice + max(self.regularisation, _SHIFT)).reciprocal_()

        def operator(volume: Tensor) -> Tensor:
            image = crop.filter(volume, twice).mul_(known)
            return image.add_(volume, alpha=self.regularisation)

        dual = conjugate_gradient(
            operator,
            crop.filter(field, highpass).mul_(known),
            self.max_iterations,
            self.tolerance,
            lambda residual: crop.filter(residual, inverse).mul_(known),
        )
        return crop.filter(dual, highpass)
