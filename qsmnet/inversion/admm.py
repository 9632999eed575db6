r"""Over-relaxed ADMM in which every linear step is one division in k-space.

.. math:: \min_{\chi, c, h}\ F(D\chi + c + h) + \lambda R(\chi)
   + \frac{\beta}{2} \sum_{mask} (\nabla^2 h)^2, \qquad \chi = 0 \text{ off the mask}

(Boyd et al. 2011, 10.1561/2200000016). Each part has a copy of what it looks at: the fidelity F of
the field, the prior R of differences of chi, the support of chi itself, the weak harmonic term of
the Laplacian of h. With P the proximal step of a part, its copy and its multiplier are P(v) and
v - P(v) of one array: v <- v + a (A chi - P(v)), and the FFT step draws A chi to 2 P(v) - v.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.inversion.fidelity import AXES, Fidelity
from qsmnet.inversion.fluid import UniformFluid
from qsmnet.inversion.harmonic import WeakHarmonic
from qsmnet.inversion.prior import Prior
from qsmnet.inversion.real_factor import RealFactor
from qsmnet.inversion.slabs import relative_change
from qsmnet.inversion.support_copy import SupportCopy
from qsmnet.inversion.unknown_field import DataTerm

_RECENTRE = 5  # iterations between fits of the mean of chi, which cost no FFT


class Solver:
    """Two FFT pairs an iteration; one where the fidelity needs no model, three with h.

    Parameters
    ----------
    data
        Field, weights, support and kernel on the padded grid.
    fidelity, prior
        The parts.
    free
        Whether chi may leave the mask.
    harmonic
        The weak harmonic term, if any.
    fluid
        Weight of `UniformFluid`, if any.
    """

    chi: Tensor

    def __init__(
        self,
        data: DataTerm,
        fidelity: Fidelity,
        prior: Prior,
        free: bool,
        harmonic: WeakHarmonic | None = None,
        fluid: Float[Tensor, "x y z"] | None = None,
    ) -> None:
        self.data, self.fidelity, self.prior, self.harmonic = data, fidelity, prior, harmonic
        nu = 0.0 if free else fidelity.support_penalty
        drawn = None if fluid is None else UniformFluid(fluid, fidelity.level, nu)
        nu = nu if drawn is None else drawn.penalty
        self.copy = SupportCopy(None if free else data.support, nu, drawn)
        # a uniform susceptibility has a field that is harmonic in the mask: what h takes up
        self.uniform = None if free or harmonic else data.uniform()
        self.steps = 0
        self.buffer = torch.empty_like(data.field)
        self._prepare_spectra()
        self._start(torch.zeros_like(data.field), torch.zeros_like(data.field))
        if self.uniform is not None:
            self._raise(self.uniform.level(data.field))

    def _prepare_spectra(self) -> None:
        spectrum = self.data.spectrum
        self.penalty = self.fidelity.penalty
        total = self.penalty * spectrum**2
        if self.harmonic is not None:
            total *= self.harmonic.gain
        total += self.copy.penalty
        total += self.prior.stiffness
        # k = 0 is free where nothing confines chi; it is set to zero
        self.inverse = RealFactor(torch.where(total > 0, 1.0 / total, 0.0))
        self.dipole = RealFactor(spectrum)

    def start_from(self, chi: Tensor) -> None:
        """Set every variable as if ``chi``, on the padded grid, had just been found."""
        spectrum = torch.fft.rfftn(chi, dim=AXES)
        self._start(chi, self._inverse_fft(self.dipole.scale(spectrum)))

    def run(self, max_iterations: int, tolerance: float) -> None:
        """Iterate until chi changes by less than ``tolerance``, relative."""
        for _ in range(max_iterations):
            if self.iterate() < tolerance:
                return

    def iterate(self) -> float:
        """One iteration; returns the change of chi in the mask, relative."""
        spectrum = torch.fft.rfftn(self._pull(), dim=AXES)
        self.prior.couple(spectrum)
        target = self.fidelity.target(self.buffer)
        if self.harmonic is not None:
            target = self.harmonic.couple(target)
        self.dipole.add_scaled(spectrum, target, self.penalty)
        previous, self.chi = self.chi, self._inverse_fft(self.inverse.scale(spectrum))
        self._advance(spectrum)
        return relative_change(self.chi, previous, self.data.support)

    def residual(self) -> Tensor:
        """Model of chi in the mask, its background and constant included, less the field."""
        inside = torch.fft.rfftn(self.chi * self.data.support, dim=AXES)
        model = self._inverse_fft(self.dipole.scale(inside))
        if self.harmonic is not None:
            model = model + self.harmonic.field()
        difference = model.sub_(self.data.field)
        weight = self.data.weight
        mean = torch.dot(weight.ravel(), difference.ravel()) / weight.sum()
        return difference.sub_(mean)

    def _start(self, chi: Tensor, model: Tensor) -> None:
        self.chi = chi
        self.copy.start(chi)
        self.prior.start(chi)
        self.fidelity.start(model)

    def _pull(self) -> Tensor:
        self.copy.pull(self.buffer)
        self.prior.pull(self.buffer)
        return self.buffer

    def _advance(self, spectrum: Tensor) -> None:
        missing = 0.0
        self.prior.advance(self.chi, spectrum)
        self.copy.advance(self.chi)
        if self.fidelity.needs_model:
            spectrum = self.dipole.scale(spectrum)
            if self.harmonic is not None:
                spectrum = self.harmonic.complete(spectrum)
            model = self._inverse_fft(spectrum)
            missing = self._missing_level(model)
            self.fidelity.advance(model)
        self._raise(missing)

    def _missing_level(self, model: Tensor) -> float:
        """Uniform susceptibility that the residual of ``model`` asks for; now and then only."""
        self.steps += 1
        if self.uniform is None or self.steps % _RECENTRE:
            return 0.0
        return self.uniform.level(self.data.field - model)

    def _raise(self, level: float) -> None:
        """Add a uniform susceptibility to chi and to all that follows it."""
        if self.uniform is None or level == 0:
            return
        self.chi.add_(self.data.support, alpha=level)
        self.copy.variable.add_(self.data.support, alpha=level)
        self.fidelity.raise_by(self.uniform.field, level)
        self.prior.raise_by(level)

    def _inverse_fft(self, spectrum: Tensor) -> Tensor:
        result: Tensor = torch.fft.irfftn(spectrum, s=self.data.shape, dim=AXES)
        return result
