r"""Background removal by dipoles outside the mask."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from qsmnet.background.crop import Crop
from qsmnet.background.depth import depth_in_mask
from qsmnet.background.removal import local_field_on
from qsmnet.background.shim import Shim
from qsmnet.conjugate_gradient import conjugate_gradient
from qsmnet.dipole import Kernel, dipole_spectrum
from qsmnet.errors import InconsistentError
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, TotalField

# sum of the squared dipole kernel over the half space beyond a plane, times the cubed distance from
# it over the voxel's volume, averaged over the plane's direction: 1 / (120 pi)
_HALF_SPACE = 1 / (120 * math.pi)


@dataclass(frozen=True)
class Pdf:
    r"""PDF: the background is what dipoles outside the mask can explain.

    Liu et al. 2011, 10.1002/nbm.1670.

    .. math:: \min_{\chi, s}\ \sum W (f - D\chi - s)^2 + \alpha \sum (p + p_0)\, \chi^2, \qquad
       \chi = 0 \text{ in the mask}, \qquad p = W * d^2

    with W the weight of the noise, zero outside the mask, d the dipole kernel in space and s a
    harmonic polynomial. The local field is :math:`f - D\chi - s`.

    Differs from the paper and common codes, which run conjugate gradients from zero and end early,
    so that the number of iterations is the regularisation: p is what W knows of a source, the
    diagonal of :math:`D W D`. It conditions the iterations, some 20 of which are then worth
    hundreds, and measures the Tikhonov term, so that :math:`\alpha` has no unit and means the same
    at any voxel size. Sources near the mask, of which p is large, are thought weak; sources
    beyond ``reach``, where :math:`p_0` takes over, all alike. The shim is free: it is no dipole's.

    The grid is the mask's box with a gap, not the field of view: sources in the gap stand for those
    beyond it, whose field is as harmonic.

    Parameters
    ----------
    regularisation
        :math:`\alpha`, without unit. Larger leaves more background, smaller takes more of the local
        field away.
    reach
        In mm, the distance from the mask's surface at which :math:`p = p_0`.
    gap
        In mm, between the mask and its periodic images.
    shim_order
        Highest degree of s: 0, 1 or 2.
    erosion
        In mm; what is nearer to the mask's edge is used, but not said to be known. The local field
        there looks like that of sources outside, but a map without it lacks the cortex and the
        sinuses: the error of TV, from wrapped phase on two heads of 1 mm with lesions, was 39.3 and
        44.1 % without, 45.9 and 62.2 % with an erosion of 2 mm (simulations/classical_pipeline). A
        method that reads zeros outside of the mask as data bears the rim less.
    tolerance, max_iterations
        Conjugate gradients end when the residual has fallen by ``tolerance``; at most this often.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    regularisation: float = 0.03
    reach: float = 3.0
    gap: float = 15.0
    shim_order: int = 2
    erosion: float = 0.0
    tolerance: float = 0.003
    max_iterations: int = 50
    kernel: Kernel = "sampled"

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 15 to 30 iterations",
        use="The default: the whole mask is kept, and the noise may vary much.",
        reference="Liu et al. 2011, 10.1002/nbm.1670",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not 0 < self.regularisation < math.inf:
            raise ValueError(f"regularisation must be positive, got {self.regularisation}")
        if not (0 < self.reach < math.inf and 0 <= self.gap < math.inf):
            raise ValueError("reach must be positive and gap not negative")
        if not 0 <= self.erosion < math.inf:
            raise ValueError(f"erosion is in mm and not negative, got {self.erosion}")
        if self.shim_order not in (0, 1, 2):
            raise ValueError(f"shim_order is 0, 1 or 2, got {self.shim_order}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < 1:
            raise ValueError("max_iterations is at least 1, tolerance at least 0 and below 1")

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field on the mask, eroded if asked for; noise and magnitude are passed on.

        Raises
        ------
        InconsistentError
            If the erosion leaves nothing.
        """
        known = total.mask
        if self.erosion:
            known = depth_in_mask(total.mask, total.geometry, self.erosion) > self.erosion
        if not bool(known.any()):
            raise InconsistentError(
                "mask", f"nothing is left after {self.erosion:g} mm", "use a smaller erosion"
            )
        crop = Crop.of(total.mask, self.gap, total.geometry)
        problem = _Problem.of(total, crop, self)
        sources = problem.sources(self.tolerance, self.max_iterations)
        return local_field_on(known, crop.put(problem.rest(sources), total.mask), total)


@dataclass(frozen=True, slots=True)
class _Problem:
    """The sum that is least, on the FFT grid.

    ``knowledge`` is p + p_0 outside the mask, ``strength`` is alpha.
    """

    field: Float[Tensor, "x y z"]
    outside: Float[Tensor, "x y z"]
    knowledge: Float[Tensor, "x y z"]
    spectrum: Float[Tensor, "kx ky kz"]
    strength: float
    shim: Shim
    crop: Crop

    @classmethod
    def of(cls, total: TotalField, crop: Crop, method: Pdf) -> "_Problem":
        geometry, inside = total.geometry, crop.take(total.mask)
        spectrum = dipole_spectrum(crop.shape, geometry, method.kernel).to(inside.device)
        weight = crop.take(_weight(total))
        knowledge = crop.filter(weight, crop.transform(crop.back(spectrum).square_()).real)
        volume = math.prod(geometry.voxel_size)
        knowledge.clamp_(min=0.0).add_(_HALF_SPACE * volume / method.reach**3)
        return cls(
            field=crop.take_inside(total),
            outside=1.0 - inside,
            knowledge=knowledge,
            spectrum=spectrum,
            strength=method.regularisation,
            shim=Shim(weight, geometry.voxel_size, method.shim_order),
            crop=crop,
        )

    def sources(self, tolerance: float, max_iterations: int) -> Float[Tensor, "x y z"]:
        """Susceptibility outside the mask in ppm: not that of the head, but with its field."""
        measure = self.strength * self.knowledge
        inverse = self.outside / self.knowledge

        def operator(chi: Tensor) -> Tensor:
            return self._seen_outside(self.crop.filter(chi, self.spectrum)).addcmul_(chi, measure)

        return conjugate_gradient(
            operator,
            self._seen_outside(self.field),
            max_iterations,
            tolerance,
            lambda residual: residual * inverse,
        )

    def rest(self, sources: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Field that neither the sources nor the shim explain."""
        rest = self.field - self.crop.filter(sources, self.spectrum)
        return rest.sub_(self.shim.fit(rest))

    def _seen_outside(self, field: Tensor) -> Tensor:
        weighted = self.shim.weighted_rest(field)
        return self.crop.filter(weighted, self.spectrum).mul_(self.outside)


def _weight(total: TotalField) -> Float[Tensor, "x y z"]:
    """Weight of the data, of mean one in the mask."""
    as_local = LocalField(total.field, total.mask, total.geometry, noise=total.noise)
    weight = as_local.data_weight()
    return weight / weight[total.mask].mean()
