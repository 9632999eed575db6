"""A data term that lets outliers go: the model error reduction of MEDI."""

import torch
from torch import Tensor

from qsmnet.inversion.fidelity import Nonlinear, Quadratic
from qsmnet.inversion.unknown_field import DataTerm

_PAUSE = 4  # iterations between looks at the outliers
# so few rad a ppm that sines are their arguments
_LINEAR = 1e-3


class WithoutOutliers(Nonlinear):
    r"""The signal's own noise, with less weight for what is no noise (MERIT).

    .. math:: W_i = W \,\max\left(1, \frac{\sqrt W\,|e^{isr} - 1| / s}{m\,\sigma}\right)^{-4}

    (Liu T et al. 2013, 10.1002/mrm.24272), with :math:`\sigma` the root mean square of the weighted
    residual, weighted as it stands: what was let go does not raise the bar.

    Parameters
    ----------
    data
        The data term.
    radians_per_ppm
        None makes the residual linear.
    merit
        m; 0 lets nothing go.
    constant
        Whether the field has a free constant.
    """

    def __init__(
        self, data: DataTerm, radians_per_ppm: float | None, merit: float, constant: bool = True
    ) -> None:
        super().__init__(data, radians_per_ppm or _LINEAR, constant)
        self.merit, self.steps = merit, 0
        self.known = self.weight.clone()

    def follow(self, term: Quadratic) -> None:
        """Go on where the linear term stands, what it leaves unexplained included."""
        super().follow(term)
        # the linear term's own answer to where it stands
        drawn = (term.field + term.kappa * (term.measured - term.field)).ravel()[self.index]
        self.residual = drawn.sub_(self.measured).add_(self.constant)

    def _proximal(self, residual: Tensor) -> Tensor:
        if self.merit and self.steps % _PAUSE == 0:
            self._let_go()
        self.steps += 1
        self.residual = super()._proximal(residual)
        return self.residual

    def _let_go(self) -> None:
        size = torch.sin(self.residual * (self.scale / 2)).abs_().mul_(2 / self.scale)
        deviation = (self.weight * size.square()).mean().sqrt()
        excess = size.mul_(self.known.sqrt()).div_(self.merit * deviation)
        self.weight = self.known / excess.clamp_min_(1.0).pow_(4)
        self.pull = self.penalty / (self.weight + self.penalty)
