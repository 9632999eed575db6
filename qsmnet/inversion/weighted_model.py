r"""The weighted data term as an operator, its free levels eliminated.

.. math:: \min_{c, m}\ \tfrac12 \sum W (D(\chi + m S) + c - b)^2, \qquad W \leftarrow W / \bar W

with c a free constant of the field and m a free uniform susceptibility of the support S. k = 0 is
not in the data, and the mean of chi shows by the shape of the mask alone: left to iterations, or to
a penalty on the size of chi, it comes last and wrong. Both enter linearly, so that the best ones
follow from the residual, at no FFT; what is left is a quadratic in chi for any solver.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Kernel
from qsmnet.inversion.support import Support, is_free
from qsmnet.inversion.unknown_field import DataTerm, Uniform
from qsmnet.volumes import LocalField

_AXES = (-3, -2, -1)


@dataclass(frozen=True, slots=True)
class WeightedModel:
    """The field of chi on the padded grid, weighted by how well the field is known.

    Parameters
    ----------
    data
        What was measured.
    weight
        W over its mean where the field is known, so that lambda hangs on the typical voxel.
    support
        1 where chi may be other than zero.
    uniform
        Field of a uniform support; None where chi is free everywhere.
    """

    data: DataTerm
    weight: Float[Tensor, "x y z"]
    support: Float[Tensor, "x y z"]
    uniform: Uniform | None

    @classmethod
    def of(
        cls, local: LocalField, support: Support, kernel: Kernel, padding: float
    ) -> "WeightedModel":
        """Crop, pad and weight one volume; one FFT pair unless chi is free."""
        data = DataTerm.of(local, kernel, padding)
        weight = data.weight / max(data.mean_weight(), torch.finfo(data.weight.dtype).tiny)
        if is_free(support, local):
            return cls(data, weight, torch.ones_like(data.support), None)
        return cls(data, weight, data.support, _sharpened(data.uniform()))

    def filter(
        self, volume: Float[Tensor, "x y z"], spectrum: Float[Tensor, "kx ky kz"]
    ) -> Float[Tensor, "x y z"]:
        """Multiply the half spectrum of a volume; one FFT pair."""
        product = torch.fft.rfftn(volume, dim=_AXES).mul_(spectrum)
        result: Tensor = torch.fft.irfftn(product, s=self.data.shape, dim=_AXES)
        return result

    def field_of(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """``D chi``, in ppm; one FFT pair."""
        return self.filter(chi, self.data.spectrum)

    def level(self, residual: Float[Tensor, "x y z"]) -> float:
        """Uniform susceptibility in ppm that best explains a residual; 0 where chi is free."""
        return 0.0 if self.uniform is None else self.uniform.level(residual)

    def centred(self, residual: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Take the best level and the best constant out of a residual, in place."""
        if self.uniform is not None:
            residual.sub_(self.uniform.field, alpha=self.uniform.level(residual))
        total = self.weight.sum().clamp_min(torch.finfo(self.weight.dtype).tiny)
        return residual.sub_(torch.dot(self.weight.ravel(), residual.ravel()) / total)

    def back(self, weighted: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """``D`` of a weighted residual, in the support; one FFT pair."""
        return self.filter(weighted, self.data.spectrum).mul_(self.support)

    def normal(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Hessian of the data term times a chi that lies in the support; two FFT pairs."""
        return self.back(self.centred(self.field_of(chi)).mul_(self.weight))

    def target(self) -> Float[Tensor, "x y z"]:
        """Minus the gradient of the data term at chi = 0; one FFT pair."""
        return self.back(self.centred(self.data.field.clone()).mul_(self.weight))

    def with_level(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Add to chi its best level; one FFT pair, none where chi is free."""
        if self.uniform is None:
            return chi
        return chi + self.level(self.data.field - self.field_of(chi)) * self.support

    def misfit(self, residual: Float[Tensor, "x y z"]) -> float:
        """Weighted mean square of a residual, in ppm^2: the noise's, ideally."""
        known = (self.weight > 0).sum().clamp_min(1)
        return float((self.weight * residual.square()).sum() / known)


def _sharpened(uniform: Uniform) -> Uniform:
    """Undo most of what guards the level of a round support: what three fits in turn would find.

    The guard shrinks the level of heads by 1 to 4 %. Eliminated once and for all, that rest would
    be the slowest of all modes: 90 FFT pairs of conjugate gradients on a head instead of 39.
    """
    share = uniform.level(uniform.field)
    gain = 1 + (1 - share) + (1 - share) ** 2
    return Uniform(uniform.field, uniform.probe * gain)
