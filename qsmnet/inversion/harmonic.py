r"""A residual background h, weakly harmonic in the mask, beside the field of chi.

.. math:: F(D\chi + h) + \frac{\beta}{2} \sum_{mask} (\nabla^2 h)^2

(Milovic et al. 2019, 10.1002/mrm.27483). With the splitting t = - lap h, the quadratic form in
(chi, h) is a 2 x 2 system for each k, of which h is eliminated: one FFT pair more an iteration.
"""

import torch
from torch import Tensor

from qsmnet.inversion.fidelity import AXES, FIELD_PENALTY, RELAXATION
from qsmnet.inversion.gradient import laplacian_spectrum
from qsmnet.inversion.unknown_field import DataTerm

_LENGTH = 3.0  # mm; of 3, 10 and 30 the one that takes up smooth backgrounds soonest


class WeakHarmonic:
    """The splitting of the Laplacian of h.

    Parameters
    ----------
    data
        The data term; h is harmonic where chi is sought.
    beta
        In mm^4, beside a data term of mean weight 1.
    penalty
        Of the splitting of the field, mu.
    """

    def __init__(self, data: DataTerm, beta: float, penalty: float) -> None:
        self.shape = data.shape
        own = penalty * _LENGTH**4
        laplacian = laplacian_spectrum(
            data.shape, data.voxel_size, data.spectrum.dtype, data.spectrum.device
        )
        total = penalty + own * laplacian**2
        #: Of the pull of the field on chi, what h does not take.
        self.gain = own * laplacian**2 / total
        self.cross = own * laplacian / total
        self.share = penalty / total
        self.laplacian = laplacian
        # of v, what the proximal step takes away
        self.shrink = data.support * (1 - own / (own + beta * penalty / FIELD_PENALTY))
        self.variable = torch.zeros_like(data.field)

    def couple(self, target: Tensor) -> Tensor:
        """Turn the field's target into that of chi alone; keep what `model` needs."""
        wanted = torch.addcmul(self.variable, self.shrink, self.variable, value=-2)
        self.wanted = torch.fft.rfftn(wanted, dim=AXES)
        self.target = target.clone()
        return target.mul_(self.gain).sub_(self.wanted * self.cross)

    def complete(self, model: Tensor) -> Tensor:
        """Add h to the half spectrum ``model`` of D chi, and advance the splitting."""
        h = self.target.sub_(model).mul_(self.share).add_(self.wanted.mul_(self.cross))
        model.add_(h)
        self.spectrum = h
        found: Tensor = torch.fft.irfftn(h * self.laplacian, s=self.shape, dim=AXES)
        step = found.sub_(self.variable).addcmul_(self.shrink, self.variable)
        self.variable.add_(step, alpha=RELAXATION)
        return model

    def field(self) -> Tensor:
        """Return h as it stands."""
        h: Tensor = torch.fft.irfftn(self.spectrum, s=self.shape, dim=AXES)
        return h
