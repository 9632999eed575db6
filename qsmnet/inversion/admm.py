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

from qsmnet.inversion.fidelity import AXES, RELAXATION, Fidelity
from qsmnet.inversion.fluid import UniformFluid
from qsmnet.inversion.harmonic import WeakHarmonic
from qsmnet.inversion.prior import Prior
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
        self.free, self.nu = free, 0.0 if free else fidelity.support_penalty
        self.fluid = None if fluid is None else UniformFluid(fluid, fidelity.level, self.nu)
        self.nu = self.nu if self.fluid is None else self.fluid.penalty
        # a uniform susceptibility has a field that is harmonic in the mask: what h takes up
        self.uniform = None if free or harmonic else data.uniform()
        self.steps = 0
        self.buffer = torch.empty_like(data.field)
        self._prepare_spectra()
        self.start_from(torch.zeros_like(data.field))
        if self.uniform is not None:
            self._raise(self.uniform.level(data.field))

    def _prepare_spectra(self) -> None:
        spectrum = self.data.spectrum
        total = self.fidelity.penalty * spectrum**2
        if self.harmonic is not None:
            total *= self.harmonic.gain
        total += self.nu
        total += self.prior.stiffness
        # k = 0 is free where nothing confines chi; it is set to zero
        self.inverse = torch.where(total > 0, 1.0 / total, 0.0)
        self.data_gain = self.fidelity.penalty * spectrum * self.inverse

    def start_from(self, chi: Tensor) -> None:
        """Set every variable as if ``chi``, on the padded grid, had just been found."""
        self.chi = chi
        self.copy = chi.clone()
        self.prior.start(chi)
        spectrum = torch.fft.rfftn(chi, dim=AXES).mul_(self.data.spectrum)
        self.fidelity.start(self._inverse_fft(spectrum))

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
        spectrum.mul_(self.inverse).add_(target.mul_(self.data_gain))
        previous, self.chi = self.chi, self._inverse_fft(spectrum)
        self._advance(spectrum)
        change = torch.linalg.vector_norm(previous.sub_(self.chi).mul_(self.data.support))
        size = torch.linalg.vector_norm(torch.mul(self.chi, self.data.support, out=previous))
        return float(change / size.clamp_min(torch.finfo(size.dtype).tiny))

    def residual(self) -> Tensor:
        """Model of chi in the mask, its background and constant included, less the field."""
        inside = torch.fft.rfftn(self.chi * self.data.support, dim=AXES)
        model = self._inverse_fft(inside.mul_(self.data.spectrum))
        if self.harmonic is not None:
            model = model + self.harmonic.field()
        difference = model.sub_(self.data.field)
        weight = self.data.weight
        mean = torch.dot(weight.ravel(), difference.ravel()) / weight.sum()
        return difference.sub_(mean)

    def _pull(self) -> Tensor:
        pull = self._confined(self.buffer)
        pull.mul_(2).sub_(self.copy).mul_(self.nu)
        self.prior.pull(pull)
        return pull

    def _advance(self, spectrum: Tensor) -> None:
        missing = 0.0
        self.prior.advance(self.chi, spectrum)
        if self.nu:
            step = self._confined(self.buffer).sub_(self.chi)
            self.copy.sub_(step, alpha=RELAXATION)
        if self.fidelity.needs_model:
            spectrum = spectrum.mul_(self.data.spectrum)
            if self.harmonic is not None:
                spectrum = self.harmonic.complete(spectrum)
            model = self._inverse_fft(spectrum)
            missing = self._missing_level(model)
            self.fidelity.advance(model)
        self._raise(missing)

    def _confined(self, out: Tensor) -> Tensor:
        """Proximal step of the copy of chi: zero off the support, together in the fluid."""
        if self.free:
            out.copy_(self.copy)
        else:
            torch.mul(self.copy, self.data.support, out=out)
        if self.fluid is not None:
            self.fluid.draw_together(out)
        return out

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
        self.copy.add_(self.data.support, alpha=level)
        self.fidelity.raise_by(self.uniform.field, level)
        self.prior.raise_by(level)

    def _inverse_fft(self, spectrum: Tensor) -> Tensor:
        result: Tensor = torch.fft.irfftn(spectrum, s=self.data.shape, dim=AXES)
        return result
