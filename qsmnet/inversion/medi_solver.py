"""TV's splitting with edges spared, phases for fields, outliers let go and a uniform fluid."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.inversion.tv import TVSolver
from qsmnet.inversion.unknown_field import DataTerm

# Iterations before phases wrap and outliers lose weight. From none, a strong source is lost to its
# own wraps (small head with a bleed: NRMSE of 52 instead of 16 %); after many, voxels that the
# unwrapping left a turn off have become spikes of chi that nothing undoes (0.3 % of them: 23 %
# after 12, 18 % after 8, 16 % after 4).
_LINEAR_STEPS = 8
_REWEIGH_STEPS = 4  # iterations between looks at the outliers
_CSF_PENALTY = 0.01  # nu over the mean weight where nothing else asks for a copy of chi


class MEDISolver(TVSolver):
    r"""ADMM of TV with four changes.

    The proximal step of y = D chi majorises :math:`1 - \cos t` by the parabola of curvature
    :math:`\sin t / t` about the phase t, wrapped, that the last y leaves: one such step an
    iteration, which never raises the objective. The shrinkage of gradients leaves edges alone.
    Voxels with residuals beyond ``merit`` standard deviations lose weight. The copy of chi is drawn
    to its mean in the fluid.

    Parameters
    ----------
    data, strength, free
        As for TV; lambda in ppm mm.
    smooth
        1 for each step between neighbours that is penalised, else 0; one array an axis.
    radians_per_ppm
        None keeps the data term linear.
    merit
        In standard deviations of the residual; 0 is never.
    csf
        On the padded grid: 0 outside of the fluid, in it how strongly it is uniform, relative to
        the data.
    """

    def __init__(
        self,
        data: DataTerm,
        strength: float,
        free: bool,
        smooth: list[Float[Tensor, "x y z"]],
        radians_per_ppm: float | None,
        merit: float,
        csf: Float[Tensor, "x y z"] | None,
    ) -> None:
        self.radians_per_ppm, self.merit, self.free = radians_per_ppm, merit, free
        self.csf = csf
        super().__init__(data, strength, "weight", free)
        self.edges = smooth
        self.weight = data.weight
        self.constant = torch.zeros_like(data.field[0, 0, 0])
        self.fitted = self.field.clone()
        if csf is not None:
            self.fluid = csf / csf.sum()
            level = csf * data.mean_weight()
            self.draw = level / (level + self.nu)

    @property
    def linear(self) -> bool:
        """Whether the next step is one of TV's."""
        if self.radians_per_ppm is None and not self.merit:
            return True
        return self.steps < _LINEAR_STEPS

    @property
    def may_stop(self) -> bool:
        """Whether steps that are linear for the start only are over."""
        return self.steps > _LINEAR_STEPS or (self.radians_per_ppm is None and not self.merit)

    def _prepare_spectra(self) -> None:
        if self.csf is not None and not self.nu:
            self.nu = _CSF_PENALTY * self.data.mean_weight()
        super()._prepare_spectra()

    def _target(self) -> Tensor:
        if self.linear:
            return super()._target()
        missing = torch.sub(self.data.field, self.fitted, out=self.scratch[0]).sub_(self.constant)
        if self.merit and (self.steps - _LINEAR_STEPS) % _REWEIGH_STEPS == 0:
            self.weight = self._reweighed(missing)
        kappa = self._turn(missing)
        kappa.div_(kappa + self.mu)
        # the rest is TV's, with the field that the parabola has its minimum at
        wanted = missing.add_(self.fitted).add_(self.constant).sub_(self.field)
        self.constant = torch.dot(kappa.ravel(), wanted.ravel()) / kappa.sum()
        torch.mul(wanted.sub_(self.constant), kappa, out=self.correction)
        return torch.add(self.field, self.correction, alpha=2.0, out=self.scratch[2])

    def _turn(self, missing: Tensor) -> Tensor:
        """Wrap what is missing to half a turn, in place, and return the parabola's curvature."""
        if self.radians_per_ppm is None:
            return self.scratch[1].copy_(self.weight)
        turns = torch.mul(missing, self.radians_per_ppm / (2 * math.pi), out=self.scratch[1])
        turns.round_()
        missing.sub_(turns, alpha=2 * math.pi / self.radians_per_ppm)
        # sinc(x) is sin(pi x) / (pi x)
        torch.mul(missing, self.radians_per_ppm / math.pi, out=turns)
        return torch.sinc(turns, out=turns).mul_(self.weight)

    def _reweighed(self, missing: Tensor) -> Tensor:
        """Weights of the data, less where the residual is too large to be noise."""
        residual = missing.abs()
        if self.radians_per_ppm is not None:
            residual.mul_(self.radians_per_ppm / 2).sin_().abs_().mul_(2 / self.radians_per_ppm)
        known = (self.data.weight > 0).sum()
        # of the weights as they are: what has been let go does not raise the bar
        deviation = (self.weight * residual.square()).sum().div(known).sqrt()
        excess = residual.mul_(self.data.weight.sqrt()).div_(self.merit * deviation)
        return self.data.weight / excess.clamp_min_(1.0).pow_(4)

    def _advance_field(self, model: Tensor) -> None:
        torch.add(self.field, self.correction, out=self.fitted)
        super()._advance_field(model)

    def _supported(self, out: Tensor) -> Tensor:
        if self.free:
            out.copy_(self.copy)
        else:
            super()._supported(out)
        if self.csf is not None:
            out.lerp_(torch.dot(self.fluid.ravel(), out.ravel()), self.draw)
        return out
