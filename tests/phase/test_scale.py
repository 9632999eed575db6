"""Stored phase to radians: every known storage, and refusal of everything else."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qsmnet.errors import InconsistentError, PhysicsError, UnreadableError, UsageError
from qsmnet.phase.scale import phase_to_radians, wrap


def _truth() -> torch.Tensor:
    phase = torch.from_numpy(np.random.default_rng(0).uniform(-math.pi, math.pi, (2, 8, 9, 10)))
    phase.view(-1)[:2] = torch.tensor([-math.pi, math.pi - 1e-3])
    return phase.float()


def _error(radians: torch.Tensor, truth: torch.Tensor) -> float:
    return float(wrap(radians - truth).abs().max())


STORAGES = {
    "radians": lambda p: p,
    "radians from 0": lambda p: p % (2 * math.pi),
    "milliradians": lambda p: p * 1000,
    "degrees": torch.rad2deg,
    "degrees from 0": lambda p: torch.rad2deg(p) % 360,
    "unsigned": lambda p: ((p / math.pi + 1) * 2048).floor().clamp(0, 4095),
    "signed": lambda p: ((p / math.pi + 1) * 2048).floor().clamp(0, 4095) * 2 - 4096,
}


@pytest.mark.parametrize("storage", STORAGES)
def test_every_known_storage_is_recognised(storage: str) -> None:
    truth = _truth()
    radians, how = phase_to_radians(STORAGES[storage](truth))
    assert _error(radians, truth) <= 2 * math.pi / 4096 + 1e-5
    assert how
    assert float(radians.abs().max()) <= math.pi + 1e-5


@pytest.mark.parametrize("factor", [2.9 / math.pi, 0.00117, 0.5, 1.2, 2000.0])
def test_a_range_that_fits_nothing_is_refused(factor: float) -> None:
    with pytest.raises(PhysicsError, match="--phase-range"):
        phase_to_radians(_truth() * factor)


def test_zero_to_one_is_refused() -> None:
    with pytest.raises(PhysicsError):
        phase_to_radians((_truth() + math.pi) / (2 * math.pi))


@given(start=st.floats(-3, 3), width=st.floats(1e-3, 1e4))
def test_a_given_range_is_linear(start: float, width: float) -> None:
    low = start * width
    truth = _truth().double()
    stored = low + (truth + math.pi) / (2 * math.pi) * width
    radians, _ = phase_to_radians(stored.float(), (low, low + width))
    assert _error(radians.double(), truth) < 1e-4


def test_data_beyond_the_given_range_are_refused() -> None:
    with pytest.raises(PhysicsError, match="beyond"):
        phase_to_radians(_truth(), (-1.0, 1.0))


def test_range_must_increase_and_sign_be_one() -> None:
    with pytest.raises(UsageError):
        phase_to_radians(_truth(), (1.0, -1.0))
    with pytest.raises(UsageError):
        phase_to_radians(_truth(), sign=0)


def test_sign_flips() -> None:
    truth = _truth()
    assert _error(phase_to_radians(truth, sign=-1)[0], -truth) < 1e-5


def test_nan_stays_nan_and_alone() -> None:
    truth = _truth()
    raw = truth.clone()
    raw[0, 1, 2, 3] = math.nan
    radians, _ = phase_to_radians(raw)
    assert bool(radians[0, 1, 2, 3].isnan())
    assert int(radians.isnan().sum()) == 1


def test_constant_phase_is_refused() -> None:
    with pytest.raises(UnreadableError, match="same everywhere"):
        phase_to_radians(torch.zeros(1, 8, 8, 8))


def test_an_echo_in_another_unit_is_refused() -> None:
    raw = torch.stack([_truth()[0], _truth()[1] * 1000])
    with pytest.raises(InconsistentError, match="echo 1"):
        phase_to_radians(raw)


def _units(*factors: float) -> torch.Tensor:
    return torch.stack([_truth()[0].clone() * factor for factor in factors])


DEGREES = 180 / math.pi


@pytest.mark.parametrize("phase_range", [None, (-180.0, 180.0)])
def test_an_echo_in_degrees_among_radians_is_refused(phase_range: tuple[float, float]) -> None:
    with pytest.raises(InconsistentError, match="echo 1"):
        phase_to_radians(_units(1, DEGREES, 1), phase_range)


def test_an_echo_in_scanner_units_of_half_the_range_is_refused() -> None:
    signed = STORAGES["signed"](_truth())
    for other in (STORAGES["unsigned"](_truth()), STORAGES["milliradians"](_truth())):
        with pytest.raises(InconsistentError, match="echo 2"):
            phase_to_radians(torch.stack([signed[0], other[0]]))


@pytest.mark.parametrize("size", [180.0, 10.0])
def test_radians_are_refused_in_another_range(size: float) -> None:
    with pytest.raises(PhysicsError, match="phase spans"):
        phase_to_radians(_truth()[:1], (-size, size))


def test_short_echoes_of_a_small_patch_are_taken() -> None:
    # grow with the echo time up to the whole range, from 15 % of it
    raw = _units(0.15, 0.4, 1)
    radians, _ = phase_to_radians(raw)
    assert _error(radians, raw) < 1e-5
    # and all may be small where the range is given
    phase_to_radians(_units(0.06, 0.1, 0.2), (-math.pi, math.pi))


def test_a_late_echo_does_not_shrink() -> None:
    with pytest.raises(InconsistentError, match="echo 2"):
        phase_to_radians(_units(1, 0.4))
