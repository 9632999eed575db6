"""Wrapped echoes to a field: unwrapping, alignment and the noise-weighted line."""

import math

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.phase.align import align_echoes
from qsmnet.phase.echoes import fit_field, signal_noise, unwrap_echoes
from qsmnet.phase.noise import median_chi2
from qsmnet.phase.scale import wrap
from qsmnet.phase.unwrap import Unwrap
from qsmnet.phase.unwrap_best_path import BestPathUnwrap
from qsmnet.phase.unwrap_laplacian import LaplacianUnwrap
from qsmnet.phase.unwrap_romeo import RomeoUnwrap
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Scan

N = 28
B0 = 7.0
GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
EVEN, UNEVEN = (0.004, 0.008, 0.012), (0.003, 0.0074, 0.0133)


def _grid() -> tuple[torch.Tensor, ...]:
    axis = torch.arange(N) - N / 2
    return torch.meshgrid(axis, axis, axis, indexing="ij")


def _mask() -> torch.Tensor:
    x, y, z = _grid()
    return x**2 + y**2 + z**2 < 12**2


def _field(strength: float = 40.0) -> torch.Tensor:
    x, y, z = _grid()
    radius = (x**2 + y**2 + (z - 18) ** 2).sqrt()
    return strength * (3 * (z - 18) ** 2 - radius**2) / radius**5 + 0.01 * x + 0.1


def _scan(
    echo_times: tuple[float, ...], noise: float = 0.0, field: torch.Tensor | None = None
) -> Scan:
    x, y, _ = _grid()
    field = _field() if field is None else field
    offset = (0.08 * x + 0.004 * y**2 + 1) * (len(echo_times) > 1)
    phase = torch.stack([offset + radians_per_ppm(t, B0) * field for t in echo_times])
    decay = torch.tensor([math.exp(-t / 0.03) for t in echo_times]).view(-1, 1, 1, 1)
    magnitude = 100.0 * decay * torch.where(_mask(), 1.0, 0.01) * torch.ones(N, N, N)
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, *phase.shape, generator=generator) * noise
    signal = torch.polar(magnitude, phase) + torch.complex(parts[0], parts[1])
    return Scan(signal.angle(), signal.abs(), echo_times, B0, GEOMETRY)


@pytest.mark.parametrize("unwrap", [BestPathUnwrap(), RomeoUnwrap()])
def test_exact_unwrapping_adds_multiples_of_two_pi(unwrap: Unwrap) -> None:
    scan, mask = _scan(EVEN, 1.0), _mask()
    turns = (unwrap(scan, mask) - scan.wrapped_phase) / (2 * math.pi)
    assert float((turns - turns.round())[:, mask].abs().max()) < 1e-5
    assert float(turns[:, mask].abs().max()) >= 1, "nothing was wrapped: the test is empty"


@pytest.mark.parametrize("unwrap", [BestPathUnwrap(), RomeoUnwrap(), LaplacianUnwrap()])
def test_a_smooth_phase_on_the_whole_grid_is_found(unwrap: Unwrap) -> None:
    x, y, z = _grid()
    truth = (0.5 * x + 0.01 * y * z)[None]
    whole = torch.ones(N, N, N, dtype=torch.bool)
    geometry = Geometry((0.5, 1.0, 2.0), (0.0, 0.0, 1.0))
    scan = Scan(wrap(truth), torch.ones_like(truth), (0.01,), B0, geometry)
    error = unwrap(scan, whole) - truth
    assert float((error - error.median()).abs().max()) < 1e-3


@pytest.mark.parametrize("echo_times", [EVEN, UNEVEN, (0.004, 0.012, 0.02, 0.028), (0.004, 0.01)])
def test_field_is_found_up_to_a_constant(echo_times: tuple[float, ...]) -> None:
    scan, mask = _scan(echo_times, noise=1.0), _mask()
    total = fit_field(scan, unwrap_echoes(scan, mask, BestPathUnwrap()), mask)
    error = (total.field - _field())[mask]
    error = error - error.median()
    # no voxel is a turn off, and the noise is what the map says
    assert float(error.abs().max()) < 0.3 / (
        radians_per_ppm(echo_times[1] - echo_times[0], B0) / 2 / math.pi
    )
    assert isinstance(total.noise, torch.Tensor)
    assert float((error / total.noise[mask]).std()) == pytest.approx(1, abs=0.15)
    assert float(total.field[~mask].abs().max()) == 0


def test_uneven_echoes_tell_the_constant_too() -> None:
    # 0.6 ppm is 1.1 turns between the first two echoes
    scan, mask = _scan(UNEVEN, 0.5, _field() + 0.6), _mask()
    total = fit_field(scan, unwrap_echoes(scan, mask, BestPathUnwrap()), mask)
    assert float((total.field - _field() - 0.6)[mask].abs().max()) < 0.1


def test_one_echo_is_phase_over_time() -> None:
    scan, mask = _scan((0.006,), 0.5), _mask()
    total = fit_field(scan, unwrap_echoes(scan, mask, BestPathUnwrap()), mask)
    error = (total.field - _field())[mask]
    assert float((error - error.median()).abs().max()) < 0.02


def test_parts_that_do_not_touch_get_the_same_turn() -> None:
    mask = _mask()
    mask[N // 2 - 1 : N // 2 + 1] = False
    scan = _scan(EVEN, 0.5)
    total = fit_field(scan, unwrap_echoes(scan, mask, BestPathUnwrap()), mask)
    error = (total.field - _field())[mask]
    assert float((error - error.median()).abs().max()) < 0.1


def test_laplacian_finds_most_of_the_field() -> None:
    scan, mask = _scan(EVEN, 0.5, _field(20.0)), _mask()
    total = fit_field(scan, unwrap_echoes(scan, mask, LaplacianUnwrap()), mask)
    found, truth = total.field[mask], _field(20.0)[mask]
    assert float(torch.corrcoef(torch.stack([found, truth]))[0, 1]) > 0.9


def test_alignment_undoes_any_turns() -> None:
    mask = _mask()
    x, y, _ = _grid()
    line = torch.stack([radians_per_ppm(t, B0) * _field(10.0) for t in EVEN])
    shifted = line + 2 * math.pi * torch.tensor([0.0, 3.0, -2.0]).view(-1, 1, 1, 1)
    assert torch.allclose(align_echoes(shifted, EVEN, mask), line * mask, atol=1e-4)
    shifted[2] += 2 * math.pi * (x > y)
    assert torch.allclose(align_echoes(shifted, EVEN, mask), line * mask, atol=1e-4)


@pytest.mark.parametrize("echo_times", [EVEN, (0.004, 0.012, 0.02, 0.028), (0.004, 0.01), (0.006,)])
@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_noise_of_the_signal_is_estimated(echo_times: tuple[float, ...], noise: float) -> None:
    scan, mask = _scan(echo_times, noise), _mask()
    unwrapped = unwrap_echoes(scan, mask, BestPathUnwrap())
    # the image of one or two echoes holds structure, too
    tolerance = 0.05 if len(echo_times) > 2 else 0.35
    assert signal_noise(scan, unwrapped, mask) == pytest.approx(noise, rel=tolerance)


def test_a_voxel_without_signal_has_finite_noise() -> None:
    scan, mask = _scan(EVEN, 1.0), _mask()
    scan.magnitude[:, N // 2, N // 2, N // 2] = 0
    total = fit_field(scan, unwrap_echoes(scan, mask, BestPathUnwrap()), mask)
    assert isinstance(total.noise, torch.Tensor)
    assert bool(total.noise.isfinite().all())
    assert bool(total.field.isfinite().all())


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 20])
def test_median_of_chi_squared(degrees: int) -> None:
    from scipy.stats import chi2

    assert median_chi2(degrees) == pytest.approx(chi2.median(degrees), rel=3e-3)
