r"""Tikhonov regularisation weighted by the noise, by conjugate gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.conjugate_gradient import conjugate_gradient
from qsmnet.dipole import Kernel, check_padding
from qsmnet.inversion.gradient import (
    add_adjoint,
    difference,
    edges_inside,
    laplacian_spectrum,
)
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.support import Support, check_support
from qsmnet.inversion.unknown_field import volumes_of
from qsmnet.inversion.weighted_model import WeightedModel
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, Susceptibility

Penalty = Literal["identity", "gradient"]

# Of the preconditioner with a penalty on gradients: the support cuts what is smooth, so that the
# exact inverse of the periodic operator blows it up. Without it 20 iterations leave a tenth of the
# residual where the weights vary, with it one in a thousand; 0.003 to 0.01 serve alike.
_LEAST_CURVATURE = 0.005


@dataclass(frozen=True)
class IterativeTikhonov:
    r"""Weighted least squares with a quadratic penalty.

    .. math:: \min_{\chi, c, m}\ \tfrac12 \sum W (D\chi + c - b)^2
       + \tfrac{\lambda}{2} \sum \|R (\chi - m)\|^2, \qquad \chi = 0 \text{ off the mask}

    with R = 1 (``identity``) or the gradient per mm between voxels of the mask (``gradient``).
    Noise-weighted as in Karsa, Punwani & Shmueli 2020 (10.1002/mrm.28377) and de Rochefort et al.
    2010 (10.1002/mrm.22187). W is `LocalField.data_weight` over its mean where the field is known
    and zero where it is not; c is a free constant of the field, m a free mean of chi. Differs from
    common codes: the field outside the mask is unknown instead of zero, the mean of chi is not
    shrunk, FFTs are real and padded, and conjugate gradients are preconditioned by the inverse of
    the periodic, unweighted operator.

    The settings of the 2024 consensus paper's first example are ``penalty: identity``,
    ``regularisation: 0.1``, ``tolerance: 0.03``.

    **Scaling of** :math:`\lambda`. Both terms are quadratic, so that it does not move with the
    field's unit. With ``identity`` it has no unit and is best near :math:`sd_b^2 / sd_\chi^2` for
    white noise and chi; with ``gradient`` it is in mm^2, and structures narrower than about
    :math:`2 \pi \sqrt\lambda / |D|` are smoothed: voxels scaled by s want :math:`s^2 \lambda` for
    the same array of chi. Doubling the noise quadruples the best one of either, as long as noise is
    what limits it.

    Parameters
    ----------
    regularisation
        :math:`\lambda`, positive: no unit, or mm^2 with ``gradient``. Of 0.001, 0.002, 0.003,
        0.005, 0.01, 0.03 and 0.1 mm^2, 0.003 and 0.005 were best on four heads of 2 mm voxels with
        noise of 0.0012 ppm; 0.001 to 0.003 with ``identity``.
    penalty
        ``gradient`` fills the cone by smoothness, ``identity`` by zeros: 24 and 33 % error on a
        head with the best lambda of each.
    support
        ``mask`` confines chi to the mask; ``free`` leaves chi outside to take up fields of sources
        outside; ``auto`` is ``free`` where `LocalField.harmonic_removed` says that such fields,
        the brain's own too, were taken out, else ``mask``.
    max_iterations, tolerance
        Stop when the residual of the normal equations is below ``tolerance`` times their right-hand
        side; at most this often.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    regularisation: float = 0.005
    penalty: Penalty = "gradient"
    support: Support = "auto"
    max_iterations: int = 30
    tolerance: float = 2e-3
    kernel: Kernel = "sampled"
    padding: float = 1.25

    takes: ClassVar[Input] = "local_field"
    #: For `Automatic`; measured on heads.
    kappa_target: ClassVar[float] = 0.25
    summary: ClassVar[Summary] = Summary(
        cost="3 FFT pairs an iteration, 4 to 20 iterations",
        use="Quadratic and smooth: weighted by the noise, no edges favoured.",
        reference="Karsa, Punwani & Shmueli 2020, 10.1002/mrm.28377",
    )

    def __post_init__(self) -> None:
        if not 0 < self.regularisation < math.inf:
            raise ValueError(f"regularisation must be positive, got {self.regularisation}")
        if self.penalty not in ("identity", "gradient"):
            raise ValueError(f"penalty is 'identity' or 'gradient', got {self.penalty!r}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < math.inf:
            raise ValueError("max_iterations is at least 1, tolerance at least 0")
        check_support(self.support)
        check_padding(self.padding)

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Invert, volume by volume."""
        maps = [self._volume(each) for each in volumes_of(local)]
        return Susceptibility(torch.stack(maps).reshape(local.field.shape), local.mask)

    def _volume(self, local: LocalField) -> Tensor:
        model = WeightedModel.of(local, self.support, self.kernel, self.padding)
        penalty = self._penalty(model)
        chi = conjugate_gradient(
            lambda chi: model.normal(chi).add_(penalty(chi), alpha=self.regularisation),
            model.target(),
            self.max_iterations,
            self.tolerance,
            self._preconditioner(model),
        )
        return model.data.paste(model.with_level(chi), local)

    def _penalty(self, model: WeightedModel) -> Callable[[Tensor], Tensor]:
        if self.penalty == "identity":
            return lambda chi: chi
        return GradientPenalty(model)

    def _preconditioner(self, model: WeightedModel) -> Callable[[Tensor], Tensor]:
        data = model.data
        # the operator with one weight for all voxels of the grid: that of their mean
        total = float(model.weight.mean()) * data.spectrum**2
        if self.penalty == "identity":
            total += self.regularisation
        else:
            squares = laplacian_spectrum(
                data.shape, data.voxel_size, total.dtype, data.spectrum.device
            )
            total += squares.mul_(self.regularisation).add_(_LEAST_CURVATURE)
        inverse = total.reciprocal_()
        return lambda residual: model.filter(residual, inverse).mul_(model.support)


class GradientPenalty:
    r"""Hessian of :math:`\tfrac12 \sum_{edges} |\partial_i \chi|^2`, edges in the support alone.

    Parameters
    ----------
    model
        Whose support and voxel size (mm) count.
    """

    def __init__(self, model: WeightedModel) -> None:
        sizes = enumerate(model.data.voxel_size)
        self.edges = [edges_inside(model.support, axis) / size**2 for axis, size in sizes]

    def __call__(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """In 1/mm^2 times the unit of chi; no FFT."""
        total = torch.zeros_like(chi)
        for axis, edges in enumerate(self.edges):
            add_adjoint(total, difference(chi, axis).mul_(edges), axis)
        return total
