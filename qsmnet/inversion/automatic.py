r"""The strength of any method's regularisation, chosen from the field itself."""

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from qsmnet.dipole import Kernel
from qsmnet.errors import UsageError
from qsmnet.inversion.cone_rule import Residual
from qsmnet.inversion.inverter import Input, Inverter
from qsmnet.inversion.unknown_field import noise_of_weighted, volumes_of
from qsmnet.volumes import Chosen, LocalField, Susceptibility

log = logging.getLogger(__name__)

#: Names that the strength of the regularisation goes by, in the order they are looked for.
STRENGTHS = ("regularisation", "threshold")
#: Logarithm of a strength, and the height found there.
Point = tuple[float, float]
_TARGET = 0.65
_SLOPE = 0.6  # of log kappa over log lambda, near the target
# of a method that has none unless told otherwise; from too little, noise that fills the grid makes
# kappa of the closed forms large again
_LEAST_START = 1e-2
_LARGEST_STEP = math.log(10.0)


@dataclass(frozen=True)
class Automatic:
    r"""Any inversion with the strength of its regularisation chosen by the cone rule.

    .. math:: \kappa(\lambda) = \text{target}

    with :math:`\kappa` of `qsmnet.inversion.cone_rule`: the share of the error of the field that
    the residual still holds. It grows with :math:`\lambda`, which is found by secants in
    :math:`\log\kappa` over :math:`\log\lambda`. The map that is returned is the inverter's own with
    the chosen :math:`\lambda`: the same as if that had been given.

    The power of a map inside and outside of the cone was compared by Milovic et al. 2021
    (10.1002/mrm.28435) to choose :math:`\lambda`. This rule compares that of the residual, which
    the prior does not shape, and takes all error, of the noise and of the model, from the data.

    Parameters
    ----------
    inverter
        The method; a ``noise_gain`` that it has is set to 0, so that the strength is all of
        :math:`\lambda`.
    parameter
        Name of its strength; empty takes ``regularisation`` or ``threshold``.
    target
        :math:`\kappa` that is aimed at; None is 0.65, but for a method that declares a
        ``kappa_target`` of its own, measured on heads.
    tolerance
        Of :math:`\kappa`, relative: within it the search ends.
    max_solves
        Most inversions.

    Raises
    ------
    UsageError
        If the inverter has no such parameter or does not take one local field.
    ValueError
        If a number is out of range.
    """

    inverter: Inverter
    parameter: str = ""
    target: float | None = None
    tolerance: float = 0.1
    max_solves: int = 8

    takes: ClassVar[Input] = "local_field"

    def __post_init__(self) -> None:
        if not (0 < self.aim < math.inf and 0 < self.tolerance < math.inf):
            raise ValueError("target and tolerance must be positive")
        if self.max_solves < 1:
            raise ValueError(f"max_solves is at least 1, got {self.max_solves}")
        object.__setattr__(self, "parameter", self.parameter or strength_of(self.inverter))
        if self.inverter.takes != self.takes:
            problem = f"{type(self.inverter).__name__} takes no single local field"
            raise UsageError(f"{self.parameter}=auto", problem, "give a number")
        if self.parameter not in STRENGTHS or not hasattr(self.inverter, self.parameter):
            problem = f"{type(self.inverter).__name__} has no strength {self.parameter!r}"
            fix = f"use auto for {' or '.join(STRENGTHS)}"
            raise UsageError(f"{self.parameter}=auto", problem, fix)

    @property
    def aim(self) -> float:
        """Kappa that is aimed at."""
        declared: float = getattr(self.inverter, "kappa_target", _TARGET)
        return declared if self.target is None else self.target

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Choose and invert, volume by volume."""
        if local.field.ndim == 3:
            return self._volume(local)
        found = [self._volume(each) for each in volumes_of(local)]
        chi = torch.stack([each.chi for each in found]).reshape(local.field.shape)
        flags = tuple(dict.fromkeys(flag for each in found for flag in each.flags))
        chosen = tuple(choice for each in found for choice in each.chosen)
        return Susceptibility(chi, local.mask, flags=flags, chosen=chosen)

    def _volume(self, local: LocalField) -> Susceptibility:
        kernel: Kernel = getattr(self.inverter, "kernel", "sampled")
        residual = Residual.of(local, kernel)
        if residual.data.scale() == 0:  # nothing to choose by
            return self.inverter(local)
        nearest: dict[float, Susceptibility] = {}  # the map of least height; more would fill memory

        def height(value: float) -> float:
            """Log of kappa over its target; NaN where the inverter refuses the value."""
            try:
                method = self.with_strength(value)
            except ValueError:
                return math.nan
            found = method(local)
            kappa = residual.evenness(found.chi)
            log.info("%s %.3g: kappa %.3g", self.parameter, value, kappa)
            miss = math.log(kappa / self.aim) if kappa > 0 else -math.inf
            if not nearest or abs(miss) < min(nearest):
                nearest.clear()
                nearest[abs(miss)] = found
            return miss

        tried = search(height, self._start(local), math.log1p(self.tolerance), self.max_solves)
        best = min(tried, key=lambda value: abs(tried[value]))
        curve = tuple((value, self.aim * math.exp(tried[value])) for value in sorted(tried))
        choice = Chosen(self.parameter, best, curve, self.aim, self._settings(best))
        (found,) = nearest.values()
        flags = found.flags + self._flags(tried[best])
        return dataclasses.replace(found, flags=flags, chosen=(choice,))

    def with_strength(self, value: float) -> Inverter:
        """Return the inverter with this strength and nothing added to it."""
        method: Inverter = dataclasses.replace(self.inverter, **self._settings(value))  # type: ignore[type-var]
        return method

    def _settings(self, value: float) -> dict[str, Any]:
        gain = {"noise_gain": 0.0} if hasattr(self.inverter, "noise_gain") else {}
        return {self.parameter: value, **gain}

    def _start(self, local: LocalField) -> float:
        start: float = getattr(self.inverter, self.parameter)
        gain: float = getattr(self.inverter, "noise_gain", 0.0)
        return (start + gain * noise_of_weighted(local)) or _LEAST_START

    def _flags(self, height: float) -> tuple[str, ...]:
        if abs(height) <= 3 * math.log1p(self.tolerance):
            return ()
        kappa = self.aim * math.exp(height)
        return (f"automatic {self.parameter}: kappa is {kappa:.2g}, not {self.aim:.2g}",)


def search(
    height: Callable[[float], float], start: float, tolerance: float, most: int
) -> dict[float, float]:
    """Find where a function that grows with a positive number is zero; return what was tried.

    Secants over the number's logarithm. A number whose height is NaN is out of range.
    """
    tried: dict[float, float] = {}
    below: Point | None = None
    above: Point | None = None
    position = math.log(start)
    for _ in range(most):
        value = math.exp(position)
        found = height(value)
        if math.isnan(found):
            found = math.inf if position > math.log(start) else -math.inf
        else:
            tried[value] = found
        if abs(found) <= tolerance:
            break
        if found < 0:
            below = position, found
        else:
            above = position, found
        position = _next(below, above)
    return tried


def _next(below: Point | None, above: Point | None) -> float:
    if below is None or above is None:
        position, found = below or above or (0.0, 0.0)
        return position - max(-_LARGEST_STEP, min(found / _SLOPE, _LARGEST_STEP))
    if math.isinf(below[1]) or math.isinf(above[1]):
        return (below[0] + above[0]) / 2
    share = below[1] / (below[1] - above[1])
    # an end that stays where it is would make the other one creep
    return below[0] + max(0.1, min(share, 0.9)) * (above[0] - below[0])


def strength_of(inverter: Inverter) -> str:
    """Name of the strength of a method's regularisation.

    Raises
    ------
    UsageError
        If it has none.
    """
    for name in STRENGTHS:
        if isinstance(getattr(inverter, name, None), float):
            return name
    problem = f"{type(inverter).__name__} has neither {' nor '.join(STRENGTHS)}"
    raise UsageError("auto", problem, "choose another inverter")
