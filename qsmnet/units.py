"""Physical constants and unit conversions: the only place that has either.

Susceptibility and field are in ppm (of the main field), phase in rad, time in s, length in mm, B0
in tesla. Sign: ``phase = phase0 + 2 pi GYROMAGNETIC_RATIO b0 echo_time field 1e-6``, so that a
paramagnetic source (chi > 0) raises field and phase along B0.
"""

import math

#: Proton gyromagnetic ratio over 2 pi, in Hz/T (CODATA 2018, shielded proton in water).
GYROMAGNETIC_RATIO = 42.576385e6


def radians_per_ppm(echo_time: float, b0: float) -> float:
    """Phase in rad that a field of 1 ppm makes at ``echo_time`` (s) and ``b0`` (T).

    ``2 pi gamma b0 echo_time 1e-6``.
    """
    return 2.0 * math.pi * hertz_per_ppm(b0) * echo_time


def hertz_per_ppm(b0: float) -> float:
    """Frequency offset in Hz of a field of 1 ppm at ``b0`` (T)."""
    return GYROMAGNETIC_RATIO * b0 * 1e-6
