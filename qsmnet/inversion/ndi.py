r"""Nonlinear dipole inversion."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsmnet.dipole import Kernel, check_padding
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.support import Support, check_support
from qsmnet.inversion.unknown_field import noise_of_weighted, volumes_of
from qsmnet.inversion.weighted_model import WeightedModel
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, Susceptibility

# Iterations of a clipped linear misfit before the periodic one. From zero the field of a bleed is
# several turns off and would be caught a multiple of 2 pi away: 74 and 43 % error on two heads
# instead of 35 and 37. Without the clip the start takes voxels that are a turn off for a source: of
# 0.2 % such voxels the error is 234 % instead of 30, 29 without them. The clip in rad lies between:
# 1 would leave bleeds behind (40 %).
_START = 5
_CLIP = 2.0
# Where the noise is not known: stop when an iteration lowers the misfit by less than this share.
# The best iterates of four heads lie at 0.08 to 0.24.
_LEAST_GAIN = 0.1


@dataclass(frozen=True)
class NDI:
    r"""Nonlinear dipole inversion (Polak et al. 2020, 10.1002/nbm.4271).

    .. math:: \min_{\chi, c}\ \frac{1}{2 s^2} \sum W |e^{i s (D\chi + c)} - e^{i s b}|^2
       + \tfrac{\lambda}{2} \sum \chi^2, \qquad \chi = 0 \text{ off the mask}

    with s the phase in rad that 1 ppm makes (`LocalField.radians_per_ppm`): a field that is a turn
    off is no error. The gradient is :math:`D\, W \sin(s(D\chi + c - b)) / s`. The number of
    iterations regularises; the paper takes 100 to 200 of steepest descent, 4 FFTs each. Here it is
    nonlinear conjugate gradients (Polak & Ribiere 1969), as Milovic & Shmueli proposed (ISMRM 2021,
    3982), with the step of the quadratic above the misfit, so that no line search is needed: 10 to
    25 iterations of two FFT pairs, where steepest descent with Nesterov's momentum took 40. They
    stop by the known noise. W is `LocalField.data_weight` over its mean where the field is known,
    1/sd^2 as the paper's magnitude squared, and zero outside; c is a free constant, and so is the
    mean of chi; chi is confined to the mask. The misfit of the first 5
    iterations is linear and clipped at 2 rad, which brings sources within the turn they belong to;
    without ``radians_per_ppm`` it is linear throughout.

    **Scaling.** Field, noise and 1/s in proportion give chi in proportion. :math:`\lambda` has no
    unit and moves with neither; as in `Tikhonov` the best one is a ratio of variances.

    Parameters
    ----------
    regularisation
        :math:`\lambda`, not negative; no unit. It only keeps late iterates from fitting noise.
    residual
        Stop when the weighted root mean square of the residual falls below this many standard
        deviations of the noise. It is below 1: chi has as many unknowns as there are data, so that
        the best map has fitted most of the noise. The best of four heads had 0.4 to 0.5, with three
        times the noise 0.45 to 0.6.
    support
        ``mask`` confines chi to the mask; ``free`` leaves chi outside to take up fields of sources
        outside; ``auto`` is ``free`` where `LocalField.harmonic_removed` says that such fields,
        the brain's own too, were taken out, else ``mask``.
    max_iterations
        At most this many; reached where the model does not explain the field.
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

    regularisation: float = 0.001
    residual: float = 0.5
    support: Support = "auto"
    max_iterations: int = 25
    kernel: Kernel = "sampled"
    padding: float = 1.25

    takes: ClassVar[Input] = "local_field"
    #: For `Automatic`; measured on heads, where the iterations end first.
    kappa_target: ClassVar[float] = 0.2
    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 10 to 25 iterations",
        use="Sharp, no prior: where phase errors of whole turns are left in the field.",
        reference="Polak et al. 2020, 10.1002/nbm.4271",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.regularisation < math.inf:
            raise ValueError(f"regularisation must not be negative, got {self.regularisation}")
        if not 0 <= self.residual < math.inf or self.max_iterations < 1:
            raise ValueError("residual is at least 0, max_iterations at least 1")
        check_support(self.support)
        check_padding(self.padding)

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Invert, volume by volume."""
        maps = [self._volume(each) for each in volumes_of(local)]
        return Susceptibility(torch.stack(maps).reshape(local.field.shape), local.mask)

    def _volume(self, local: LocalField) -> Tensor:
        model = WeightedModel.of(local, self.support, self.kernel, self.padding)
        descent = _Descent(model, self.regularisation, local.radians_per_ppm)
        enough = (self.residual * noise_of_weighted(local)) ** 2
        before = math.inf
        for _ in range(self.max_iterations):
            misfit = descent.iterate()
            stalled = not enough and misfit > (1 - _LEAST_GAIN) * before
            if misfit <= enough or stalled:
                break
            before = misfit
        return model.data.paste(descent.with_level(), local)


class _Descent:
    """Nonlinear conjugate gradients; the residual is kept: an iteration is two FFT pairs."""

    def __init__(self, model: WeightedModel, strength: float, turn: float | None) -> None:
        self.model, self.strength, self.turn = model, strength, turn
        self.chi = torch.zeros_like(model.data.field)
        self.direction, self.downhill = torch.zeros_like(self.chi), torch.zeros_like(self.chi)
        self.level = model.level(model.data.field)
        self.residual = model.centred(model.data.field.clone())
        self.steps = 0

    def iterate(self) -> float:
        """One iteration; returns the weighted mean square of the residual in ppm^2."""
        model = self.model
        self._turn_downhill()
        image = model.field_of(self.direction)
        level = model.level(image)
        model.centred(image)
        curvature = float((model.weight * image.square()).sum())
        curvature += self.strength * _dot(self.direction, self.direction)
        if not curvature > 0:  # nothing left that the model could explain
            return 0.0
        step = _dot(self.downhill, self.direction) / curvature
        self.chi.add_(self.direction, alpha=step)
        self.residual.sub_(image, alpha=step)
        self.level -= step * level
        self.steps += 1
        return model.misfit(self._seen())

    def with_level(self) -> Tensor:
        """Chi with its mean."""
        return torch.add(self.chi, self.model.support, alpha=self.level)

    def _turn_downhill(self) -> None:
        model = self.model
        seen = self._seen()
        # constant and level of what is seen move at once: a step of Gauss and Newton
        self.level += model.level(seen)
        pull = model.centred(seen.clone())
        self.residual.sub_(seen.sub_(pull))
        previous, self.downhill = self.downhill, model.back(pull.mul_(model.weight))
        self.downhill.sub_(self.chi, alpha=self.strength)
        size = _dot(previous, previous)
        # the misfit changes after the start: old directions say nothing
        keep = 0.0 if self.steps == _START or size == 0 else 1 / size
        keep *= max(0.0, _dot(self.downhill, self.downhill) - _dot(self.downhill, previous))
        self.direction.mul_(keep).add_(self.downhill)

    def _seen(self) -> Tensor:
        """Residual in ppm as the phase shows it; at the start it is clipped instead."""
        if self.turn is None:
            return self.residual.clone()
        if self.steps < _START:
            bound = _CLIP / self.turn
            return self.residual.clamp(-bound, bound)
        return torch.sin(self.residual * self.turn).div_(self.turn)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.ravel(), b.ravel()))
