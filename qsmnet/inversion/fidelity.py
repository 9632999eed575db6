r"""Data terms of the ADMM solvers: what D chi is drawn to.

Each holds the array v of its splitting y = D chi (see `qsmnet.inversion.admm`). In the residual
r = y + c - b, per voxel, with c a free constant and s the phase that 1 ppm makes, in rad:

==================  ==========================================  ==============================
`Quadratic`         :math:`\tfrac12 W r^2`                      Gaussian noise of the field
`Nonlinear`         :math:`\tfrac12 W |e^{isr} - 1|^2 / s^2`    Gaussian noise of the signal
`Absolute`          :math:`\sqrt W\, |e^{isr} - 1| / s`         outliers; s to 0: the linear L1
==================  ==========================================  ==============================

Division by s makes them agree with the linear ones where r is small, so that lambda keeps its
meaning whatever the echo time.
"""

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from qsmnet.inversion.slabs import Slabs
from qsmnet.inversion.unknown_field import DataTerm

AXES = (-3, -2, -1)
#: Over-relaxation of every splitting.
RELAXATION = 1.6
# Tuned on 64^3 to 96^3 heads, noise 0 to 0.01 ppm: fewest FFT pairs to within 0.5 points of the
# limit. All are relative to scales of the data, so that neither the field's unit nor the best
# voxel's noise moves them.
#: mu over the mean weight.
FIELD_PENALTY = 0.3
_SUPPORT_PENALTY = 0.01  # nu over the mean weight
_ABSOLUTE_STEP = 0.2  # mean weight over mu of the absolute term, in the field's spread
_NEWTON_STEPS = 2  # after the linear one
_LEAST_CURVATURE = 0.1  # of the absolute term's proximal step; 1 where it is linear


@runtime_checkable
class Fidelity(Protocol):
    """A data term and the state of its splitting.

    ``level`` is its typical curvature, by which lambda is multiplied, ``penalty`` that of the
    splitting of D chi, ``support_penalty`` that of the support's; ``needs_model`` is False where
    D chi is not asked for.
    """

    level: float
    penalty: float
    support_penalty: float
    needs_model: bool

    def start(self, model: Tensor) -> None:
        """Set v as if ``model`` had just been found for D chi."""
        ...

    def target(self, out: Tensor) -> Tensor:
        """Half spectrum of what D chi is drawn to; ``out`` is memory to work in."""
        ...

    def advance(self, model: Tensor) -> None:
        """Take in the new D chi, whose memory may be used up."""
        ...

    def raise_by(self, field: Tensor, level: float) -> None:
        """Add ``level`` times ``field``, of a uniform susceptibility, to what is held."""
        ...


class Quadratic:
    """Least squares, the field unknown where its weight is zero."""

    needs_model = True

    def __init__(self, data: DataTerm, constant: bool = True) -> None:
        # W is relative to the best voxel; the penalties follow the typical one
        self.level = data.mean_weight()
        self.penalty = FIELD_PENALTY * self.level
        self.support_penalty = _SUPPORT_PENALTY * self.level
        self.measured = data.field
        self.kappa = data.weight / (data.weight + self.penalty)
        self.total = self.kappa.sum() if constant else torch.tensor(math.inf)
        self.slabs = Slabs(data.field)
        self.correction = torch.empty_like(data.field)
        self.constant = torch.zeros((), dtype=data.field.dtype, device=data.field.device)

    def start(self, model: Tensor) -> None:
        """Set v."""
        self.field = model

    def target(self, out: Tensor) -> Tensor:
        """Half spectrum of 2 P(v) - v."""
        return _transformed(self._corrected(2.0, out))

    def advance(self, model: Tensor) -> None:
        """Over-relaxed."""
        _relax(self.field, model, self.correction)

    def raise_by(self, field: Tensor, level: float) -> None:
        """Add to v."""
        self.field.add_(field, alpha=level)

    def _corrected(self, times: float, out: Tensor) -> Tensor:
        """Set the correction P(v) - v; v with it so many ``times``."""
        # the free constant is eliminated: its best value given the splitting's array
        shares = [
            torch.dot(self.kappa[slab].ravel(), self._missing(slab).ravel()) for slab in self.slabs
        ]
        self.constant = torch.stack(shares).sum() / self.total
        for slab in self.slabs:
            correction = self.correction[slab].sub_(self.constant).mul_(self.kappa[slab])
            torch.add(self.field[slab], correction, alpha=times, out=out[slab])
        return out

    def _missing(self, slab: slice) -> Tensor:
        return torch.sub(self.measured[slab], self.field[slab], out=self.correction[slab])


class Filled(Quadratic):
    """Least squares by the majoriser b <- W b + (1 - W) D chi; without a penalty to choose."""

    def __init__(self, data: DataTerm, constant: bool = True) -> None:
        super().__init__(data, constant)
        self.penalty = 1.0
        self.kappa = data.weight
        self.total = self.kappa.sum() if constant else self.total

    def target(self, out: Tensor) -> Tensor:
        """Half spectrum of the filled field."""
        return _transformed(self._corrected(1.0, out))

    def advance(self, model: Tensor) -> None:
        """Take the model's own field."""
        self.field = model


class Zeros:
    """Least squares with zeros taken as data: no splitting, half the FFTs."""

    level = 1.0
    penalty = 1.0
    support_penalty = 0.0
    needs_model = False

    def __init__(self, data: DataTerm) -> None:
        self.transformed = _transformed(data.field)

    def start(self, model: Tensor) -> None:
        """Hold nothing."""

    def target(self, out: Tensor) -> Tensor:  # noqa: ARG002 the protocol's
        """Half spectrum of the data."""
        return self.transformed

    def advance(self, model: Tensor) -> None:
        """Hold nothing."""

    def raise_by(self, field: Tensor, level: float) -> None:
        """Hold nothing."""


class _Pointwise(ABC):
    """A data term whose proximal step is worked out where the field is known, and there alone."""

    needs_model = True
    level: float
    penalty: float
    support_penalty: float

    def __init__(self, data: DataTerm, radians_per_ppm: float | None, constant: bool) -> None:
        self.index = data.weight.ravel().nonzero().ravel()
        self.measured = data.field.ravel()[self.index]
        self.weight = data.weight.ravel()[self.index]
        self.radians_per_ppm = radians_per_ppm
        self.is_free = constant
        self.constant = torch.zeros((), dtype=data.field.dtype, device=data.field.device)
        self.correction = torch.zeros_like(data.field)

    def start(self, model: Tensor) -> None:
        """Set v."""
        self.field = model

    def follow(self, term: Quadratic) -> None:
        """Go on where the linear term stands."""
        self.start(term.field)
        self.constant = term.constant

    def target(self, out: Tensor) -> Tensor:
        """Half spectrum of 2 P(v) - v."""
        residual = self.field.ravel()[self.index].sub_(self.measured).add_(self.constant)
        step = self._proximal(residual).sub_(residual)
        if self.is_free:  # a Newton step of the constant's own equation
            self.constant = self.constant + step.sum() / self._stiffness()
        self.correction.ravel()[self.index] = step
        return _transformed(torch.add(self.field, self.correction, alpha=2.0, out=out))

    def advance(self, model: Tensor) -> None:
        """Over-relaxed."""
        _relax(self.field, model, self.correction)

    def raise_by(self, field: Tensor, level: float) -> None:
        """Add to v."""
        self.field.add_(field, alpha=level)

    @abstractmethod
    def _proximal(self, residual: Tensor) -> Tensor:
        """Residual that is best for the term beside the pull to ``residual``."""

    @abstractmethod
    def _stiffness(self) -> Tensor | float:
        """At most what a unit of the constant moves of the corrections, summed."""


class Nonlinear(_Pointwise):
    r"""The signal's own noise: :math:`W (1 - \cos s r) / s^2`, blind to whole turns of the phase.

    The minimum with a pull to r0 lies between r0 and the nearest whole turn. From that turn,
    Newton's steps rise to it without overshoot (the derivative is concave there); the first of them
    is the linear term's answer.
    """

    def __init__(self, data: DataTerm, radians_per_ppm: float, constant: bool = True) -> None:
        super().__init__(data, radians_per_ppm, constant)
        self.level = data.mean_weight()
        self.penalty = FIELD_PENALTY * self.level
        self.support_penalty = _SUPPORT_PENALTY * self.level
        self.pull = self.penalty / (self.weight + self.penalty)
        self.scale = radians_per_ppm

    def _proximal(self, residual: Tensor) -> Tensor:
        wanted = residual * self.scale
        turns = torch.round(wanted / (2 * math.pi)).mul_(2 * math.pi)
        wanted.sub_(turns)
        phase = self.pull * wanted
        for _ in range(_NEWTON_STEPS):
            slope = torch.sin(phase).lerp_(phase - wanted, self.pull)
            curvature = torch.cos(phase).lerp_(torch.ones_like(phase), self.pull)
            phase.sub_(slope.div_(curvature.clamp_min_(_LEAST_CURVATURE)))
        return phase.add_(turns).div_(self.scale)

    def _stiffness(self) -> Tensor:
        return (1 - self.pull).sum()


class Absolute(_Pointwise):
    r"""Outliers count by their size, not its square: :math:`2 \sqrt W |\sin(s r / 2)| / s`.

    Linear, :math:`\sqrt W |r|`, without the phase that 1 ppm makes. Its lambda is in mm: chi goes
    with the field by itself.
    """

    def __init__(
        self, data: DataTerm, radians_per_ppm: float | None, constant: bool = True
    ) -> None:
        super().__init__(data, radians_per_ppm, constant)
        root = self.weight.sqrt()
        self.level = float(root.mean())
        self.penalty = self.level / (_ABSOLUTE_STEP * data.scale())
        self.support_penalty = _SUPPORT_PENALTY / FIELD_PENALTY * self.penalty
        self.bound = root / self.penalty

    def _proximal(self, residual: Tensor) -> Tensor:
        scale = self.radians_per_ppm
        if scale is None:
            return residual - residual.clamp(-self.bound, self.bound)
        period = 2 * math.pi / scale
        turns = torch.round(residual / period).mul_(period)
        sign = torch.sign(residual - turns)
        wanted = (residual - turns).abs_()
        size = (wanted - self.bound).clamp_min_(0)
        held = size == 0  # at the kink
        for _ in range(_NEWTON_STEPS):
            slope = torch.cos(size * (scale / 2)).mul_(self.bound).add_(size).sub_(wanted)
            curve = 1 - torch.sin(size * (scale / 2)).mul_(self.bound).mul_(scale / 2)
            size.sub_(slope.div_(curve.clamp_min_(_LEAST_CURVATURE)))
        return size.masked_fill_(held, 0).mul_(sign).add_(turns)

    def _stiffness(self) -> float:
        return float(self.index.numel())


def _transformed(volume: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.rfftn(volume, dim=AXES)
    return spectrum


def _relax(field: Tensor, model: Tensor, correction: Tensor) -> None:
    """Over-relaxed step of v, the ``field``, to the model; P(v) - v is the ``correction``."""
    for slab in Slabs(field):
        step = model[slab].sub_(field[slab]).sub_(correction[slab])
        field[slab].add_(step, alpha=RELAXATION)
