"""Stored phase to radians, without guessing: refused where more than one scale would fit."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.errors import InconsistentError, PhysicsError, UnreadableError, UsageError

# (lowest, highest, name, phase in rad of the lowest value); scanners and converters write no others
_STORAGES = (
    (-math.pi, math.pi, "radians, -pi to pi", -math.pi),
    (0.0, 2 * math.pi, "radians, 0 to 2 pi", 0.0),
    (-1000 * math.pi, 1000 * math.pi, "milliradians, -3142 to 3142", -math.pi),
    (0.0, 2000 * math.pi, "milliradians, 0 to 6283", 0.0),
    (-180.0, 180.0, "degrees, -180 to 180", -math.pi),
    (0.0, 360.0, "degrees, 0 to 360", 0.0),
    (0.0, 4096.0, "scanner units, 0 to 4095", -math.pi),
    (-4096.0, 4096.0, "scanner units, -4096 to 4095", -math.pi),
)
# A wrapped phase reaches both ends of its range; how far it may stay away or overshoot.
_MISSING, _BEYOND = 0.02, 0.005
# Share of the range that an echo must span. Radians fill 1.7 % of a range in degrees, degrees 4.4 %
# of scanner units; 5 % of 2 pi is 0.31 rad, which noise alone spans at a signal-to-noise ratio of
# 20. Beside an echo that fills the range, degrees in 0 to 4095 (8.8 %) must be told from short
# echoes: at 12.5 % the other has 8 times the echo time, or other units.
_LEAST_SPAN, _LEAST_BESIDE_FULL = 0.05, 0.125
# phase spreads as time goes on: an echo after one that fills the range spans at least this share
_LEAST_AFTER_FULL = 0.5
_FULL = 1 - 2 * _MISSING


def phase_to_radians(
    raw: Float[Tensor, "echo x y z"],
    phase_range: tuple[float, float] | None = None,
    sign: int = 1,
    source: str = "phase",
) -> tuple[Float[Tensor, "echo x y z"], str]:
    """Phase in rad in [-pi, pi], and a description of how it was stored.

    Values map linearly; nothing is stretched to fill a range, no voxel is replaced. NaN stays NaN.

    Parameters
    ----------
    raw
        As stored, after the header's slope and intercept.
    phase_range
        The stored values that mean -pi and pi. None recognises the range: radians (+-pi, 0 to
        2 pi), milliradians, degrees, 0 to 4095, -4096 to 4095.
    sign
        -1 for scanners whose phase falls where the field rises.
    source
        File name for the error.

    Raises
    ------
    PhysicsError
        If the range fits no storage (a shorter range may be any unit, or phase that was filtered),
        or the data fill too little of the range that is given.
    InconsistentError
        If one echo seems stored in another unit than the rest.
    UnreadableError
        If the phase is constant.
    UsageError
        If ``phase_range`` is not increasing or ``sign`` is not 1 or -1.
    """
    if sign not in {1, -1}:
        raise UsageError("--phase-sign", f"{sign} is not 1 or -1", "use --phase-sign -1 to flip")
    lowest, highest = _data_range(raw, source)
    if phase_range is None:
        low, high, name, start = _recognise(lowest, highest, source)
    else:
        low, high, name, start = _given(phase_range, lowest, highest, source)
    _refuse_mixed_units([_data_range(echo, source) for echo in raw], high - low, source)
    radians = (raw - low) * (2 * math.pi / (high - low)) + start
    return sign * wrap(radians), name + (", sign flipped" if sign < 0 else "")


def wrap(phase: Float[Tensor, "*batch x y z"]) -> Float[Tensor, "*batch x y z"]:
    """Give the value in [-pi, pi] that differs from ``phase`` (rad) by a multiple of 2 pi."""
    return phase - 2 * math.pi * torch.round(phase / (2 * math.pi))


def _data_range(raw: Tensor, source: str) -> tuple[float, float]:
    finite = raw[raw.isfinite()]
    if finite.numel() == 0 or bool(finite.min() == finite.max()):
        raise UnreadableError(
            source, "the phase is the same everywhere", "export the phase again, as measured"
        )
    return float(finite.min()), float(finite.max())


def _recognise(lowest: float, highest: float, source: str) -> tuple[float, float, str, float]:
    found = _storage(lowest, highest)
    if found is not None:
        return found
    raise PhysicsError(
        source,
        f"the phase spans {lowest:.6g} to {highest:.6g}, which is no range that is known",
        "name the stored values that mean -pi and pi: --phase-range LO HI",
    )


def _storage(lowest: float, highest: float) -> tuple[float, float, str, float] | None:
    """Storage that values fill from end to end, if they do."""
    for low, high, name, start in _STORAGES:
        span = high - low
        reaches = lowest <= low + _MISSING * span and highest >= high - _MISSING * span
        if reaches and lowest >= low - _BEYOND * span and highest <= high + _BEYOND * span:
            return low, high, name, start
    return None


def _given(
    phase_range: tuple[float, float], lowest: float, highest: float, source: str
) -> tuple[float, float, str, float]:
    low, high = phase_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            "--phase-range", f"{low:g} {high:g} is not increasing", "give LO, then a larger HI"
        )
    slack = 0.01 * (high - low)
    problem = ""
    if lowest < low - slack or highest > high + slack:
        problem = f"beyond the range {low:g} {high:g}"
    elif highest - lowest < _LEAST_SPAN * (high - low):
        problem = f"almost nothing of the range {low:g} {high:g}"
    elif (unit := _other_unit(lowest, highest, high - low)) is not None:
        problem = f"which is {unit}, not {low:g} to {high:g}"
    if problem:
        raise PhysicsError(
            source,
            f"the phase spans {lowest:.6g} to {highest:.6g}, {problem}",
            "give the stored values that mean -pi and pi",
        )
    return low, high, f"as given, {low:g} to {high:g}", -math.pi


def _other_unit(lowest: float, highest: float, span: float) -> str | None:
    """Name of the storage that values fill, if its range is not ``span`` wide."""
    found = _storage(lowest, highest)
    if found is None or abs((found[1] - found[0]) / span - 1) < 0.05:
        return None
    return found[2]


def _refuse_mixed_units(echoes: list[tuple[float, float]], span: float, source: str) -> None:
    """Refuse an echo that looks as if it were stored in another unit than the rest."""
    full = [highest - lowest >= _FULL * span for lowest, highest in echoes]
    for index, (lowest, highest) in enumerate(echoes):
        least = _LEAST_BESIDE_FULL if any(full) else _LEAST_SPAN
        least = _LEAST_AFTER_FULL if any(full[:index]) else least
        unit = _other_unit(lowest, highest, span)
        if highest - lowest < least * span or unit is not None:
            seems = f", which is {unit}" if unit else ""
            raise InconsistentError(
                source,
                f"echo {index + 1} spans {lowest:.4g} to {highest:.4g}{seems}, of a range of"
                f" {span:.4g}",
                "export every echo in the same unit, or name the range with --phase-range LO HI",
            )
