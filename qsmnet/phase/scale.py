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
# an echo that spans less of the range than this was stored in another unit than the rest
_LEAST_SPAN = 0.01


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
        If the range fits no storage (a shorter range may be any unit, or phase that was filtered).
    InconsistentError
        If one echo is stored in another unit than the rest.
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
    _refuse_mixed_units(raw, high - low, source)
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
    for low, high, name, start in _STORAGES:
        span = high - low
        reaches = lowest <= low + _MISSING * span and highest >= high - _MISSING * span
        if reaches and lowest >= low - _BEYOND * span and highest <= high + _BEYOND * span:
            return low, high, name, start
    raise PhysicsError(
        source,
        f"the phase spans {lowest:.6g} to {highest:.6g}, which is no range that is known",
        "name the stored values that mean -pi and pi: --phase-range LO HI",
    )


def _given(
    phase_range: tuple[float, float], lowest: float, highest: float, source: str
) -> tuple[float, float, str, float]:
    low, high = phase_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            "--phase-range", f"{low:g} {high:g} is not increasing", "give LO, then a larger HI"
        )
    slack = 0.01 * (high - low)
    if lowest < low - slack or highest > high + slack:
        raise PhysicsError(
            source,
            f"the phase spans {lowest:.6g} to {highest:.6g}, beyond the range {low:g} {high:g}",
            "give the stored values that mean -pi and pi",
        )
    return low, high, f"as given, {low:g} to {high:g}", -math.pi


def _refuse_mixed_units(raw: Tensor, span: float, source: str) -> None:
    for number, echo in enumerate(raw, start=1):
        lowest, highest = _data_range(echo, source)
        if highest - lowest < _LEAST_SPAN * span:
            raise InconsistentError(
                source,
                f"echo {number} spans {lowest:.4g} to {highest:.4g}, of a range of {span:.4g}",
                "export every echo in the same unit, or name the range with --phase-range LO HI",
            )
