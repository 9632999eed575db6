"""Conversions at the figures that every scanner manual has."""

import math

import pytest

from qsmnet.units import GYROMAGNETIC_RATIO, hertz_per_ppm, radians_per_ppm


def test_gyromagnetic_ratio() -> None:
    assert pytest.approx(42.576e6, rel=2e-5) == GYROMAGNETIC_RATIO


def test_hertz_per_ppm() -> None:
    assert hertz_per_ppm(3.0) == pytest.approx(127.73, abs=0.01)


@pytest.mark.parametrize(("b0", "echo_time", "radians"), [(7.0, 0.02, 37.45), (3.0, 0.02, 16.05)])
def test_radians_per_ppm(b0: float, echo_time: float, radians: float) -> None:
    assert radians_per_ppm(echo_time, b0) == pytest.approx(radians, abs=0.01)
    assert radians_per_ppm(echo_time, b0) == 2 * math.pi * hertz_per_ppm(b0) * echo_time
