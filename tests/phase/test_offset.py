"""Phase at TE = 0: found where it is smooth, whatever the wraps, and taken out."""

import math
from dataclasses import replace

import pytest
import torch

from qsmnet.cli.compose import available, compose
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.phase.coils import CoilCombination, CoilScan
from qsmnet.phase.echoes import fit_field, unwrap_echoes
from qsmnet.phase.offset_bipolar import BipolarOffset
from qsmnet.phase.offset_mcpc3ds import Mcpc3ds
from qsmnet.phase.scale import wrap
from qsmnet.phase.smooth import smooth_phase
from qsmnet.phase.unwrap_romeo import RomeoUnwrap
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Scan

SHAPE, B0 = (32, 36, 25), 7.0
GEOMETRY = Geometry((1.0, 1.2, 1.6), (0.0, 0.0, 1.0))
TIMES = (0.004, 0.0095, 0.015, 0.0205)
SIGMA = 1.0
# the object is a fifth of a brain
MONOPOLAR, BIPOLAR = Mcpc3ds(5.0), BipolarOffset(5.0)
COILS = CoilCombination(5.0)


def _axes() -> tuple[torch.Tensor, ...]:
    edges = GEOMETRY.voxel_size
    axes = [(torch.arange(n) - n / 2) * edge for n, edge in zip(SHAPE, edges, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


def _mask() -> torch.Tensor:
    x, y, z = _axes()
    return x**2 + y**2 + z**2 < 15**2


def _offset() -> torch.Tensor:
    x, y, z = _axes()
    return 2.5 + 0.1 * x - 0.05 * z + 0.003 * y**2


def _field() -> torch.Tensor:
    x, y, z = _axes()
    far = (x**2 + y**2 + (z - 22) ** 2).sqrt()
    return 80 * (3 * (z - 22) ** 2 - far**2) / far**5 + 0.01 * x


def _signal(times: tuple[float, ...], sensitivity: float | torch.Tensor = 100.0) -> torch.Tensor:
    return torch.stack(
        [
            torch.polar(
                sensitivity * math.exp(-t / 0.03) * torch.where(_mask(), 1.0, 0.02),
                radians_per_ppm(t, B0) * _field(),
            )
            for t in times
        ]
    )


def _noisy(signal: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = SIGMA * torch.randn(2, *signal.shape, generator=generator)
    return signal + torch.complex(parts[0], parts[1])


def _scan(times: tuple[float, ...] = TIMES, alternating: torch.Tensor | None = None) -> Scan:
    turned = torch.stack([_offset()] * len(times))
    if alternating is not None:
        turned[1::2] += alternating
    signal = _noisy(_signal(times) * torch.polar(torch.ones_like(turned), turned))
    return Scan(signal.angle(), signal.abs(), times, B0, GEOMETRY)


def _field_error(scan: Scan, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Error of the field and its noise in ppm."""
    total = fit_field(scan, unwrap_echoes(scan, mask, RomeoUnwrap()), mask)
    error = (total.field - _field())[mask]
    assert isinstance(total.noise, torch.Tensor)
    return error, total.noise[mask]


@pytest.mark.parametrize("times", [TIMES, TIMES[:2], (0.006, 0.01), (0.003, 0.0074, 0.0133)])
def test_a_smooth_offset_is_found(times: tuple[float, ...]) -> None:
    scan, mask = _scan(times), _mask()
    bare = MONOPOLAR(scan, mask)
    assert bare.offset_removed
    removed = scan.wrapped_phase - bare.wrapped_phase - _offset()
    assert float(wrap(removed - removed[0]).abs().max()) < 1e-4
    # theta may be a turn off as a whole: a constant
    error = wrap(removed[0] - removed[0][mask].median())[mask]
    assert float(error.abs().max()) < 0.15
    assert float(error.square().mean().sqrt()) < 0.03


def test_a_field_without_offset_is_less_noisy() -> None:
    scan, mask = _scan(), _mask()
    free, _ = _field_error(scan, mask)
    bare, noise = _field_error(MONOPOLAR(scan, mask), mask)
    assert float(bare.std()) < 0.8 * float(free.std())
    # what is left of the offset comes on top of what the noise map says: smooth, most at the rim
    assert 1.0 < float((bare / noise).std()) < 1.8


def test_a_step_of_theta_does_not_step_the_field() -> None:
    # halves that do not touch: each has a multiple of 2 pi of its own, times TE1 / (TE2 - TE1)
    scan, mask = _scan(), _mask()
    mask[15:17] = False
    error, _ = _field_error(MONOPOLAR(scan, mask), mask)
    assert float((error - error.median()).abs().max()) < 0.05


def test_voxels_that_were_unwrapped_wrongly_do_not_spread() -> None:
    x, y, z = _axes()
    phase, weight = _offset(), torch.ones(SHAPE)
    wrong = (x - 6) ** 2 + y**2 + z**2 < 3.0**2
    spoilt = torch.where(wrong, phase + 2.4, phase)
    errors = [
        float(wrap(smooth_phase(each, weight, 5.0, GEOMETRY, 20) - phase)[wrong].abs().max())
        for each in (spoilt, torch.where(wrong, phase + 0.9, phase))
    ]
    # what is far off is left out, what is not far off is followed
    assert errors[0] < 0.05
    assert errors[1] > 0.15


def test_smoothing_follows_slopes_to_the_rim() -> None:
    phase, mask = _offset(), _mask()
    errors = [
        float(wrap(smooth_phase(phase, mask.float(), 5.0, GEOMETRY, n) - phase)[mask].abs().max())
        for n in (1, 20)
    ]
    assert errors[1] < 0.1 * errors[0]


def test_one_echo_and_a_removed_offset_stay() -> None:
    scan, mask = _scan((0.006,)), _mask()
    assert MONOPOLAR(scan, mask) is scan
    bare = MONOPOLAR(_scan(), mask)
    assert MONOPOLAR(bare, mask) is bare


@pytest.mark.parametrize("size", [0.02, 0.12])
def test_what_alternates_is_removed(size: float) -> None:
    x, y, _ = _axes()
    alternating = size * x + 0.5 * size * y + 0.3
    scan, mask = _scan(alternating=alternating), _mask()
    error, _ = _field_error(BIPOLAR(scan, mask), mask)
    ignored, _ = _field_error(MONOPOLAR(scan, mask), mask)
    straight, _ = _field_error(MONOPOLAR(_scan(), mask), mask)
    assert float(error.std()) < 2 * float(straight.std())
    assert float(ignored.std()) > 2 * float(error.std())


def test_bipolar_leaves_monopolar_echoes_as_good() -> None:
    scan, mask = _scan(), _mask()
    error, _ = _field_error(BIPOLAR(scan, mask), mask)
    straight, _ = _field_error(MONOPOLAR(scan, mask), mask)
    assert float(error.std()) < 1.2 * float(straight.std())


@pytest.mark.parametrize("times", [TIMES[:2], (0.003, 0.0074, 0.0133)])
def test_bipolar_needs_three_even_echoes(times: tuple[float, ...]) -> None:
    with pytest.raises(InconsistentError, match="echo times"):
        BIPOLAR(_scan(times), _mask())


@pytest.mark.parametrize("name", available("offset"))
def test_magnitude_unit_and_far_voxels_do_not_matter(name: str) -> None:
    scan, mask, method = _scan(), _mask(), compose("offset", name)
    phase = method(scan, mask).wrapped_phase
    other = replace(scan, magnitude=scan.magnitude * 1e-4)
    assert float(wrap(method(other, mask).wrapped_phase - phase)[:, mask].abs().max()) < 1e-3
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    other = replace(scan, wrapped_phase=torch.where(mask, scan.wrapped_phase, noise))
    assert float(wrap(method(other, mask).wrapped_phase - phase)[:, mask].abs().max()) < 0.02


@pytest.mark.parametrize("kind", [Mcpc3ds, BipolarOffset, CoilCombination])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_parameters_are_refused(kind: type, bad: float) -> None:
    with pytest.raises(ValueError, match="width"):
        kind(width=bad)
    with pytest.raises(ValueError, match="passes"):
        kind(passes=0)


def _coils(times: tuple[float, ...] = TIMES) -> CoilScan:
    x, y, z = _axes()
    centres = ((22, 0, 0), (-22, 0, 5), (0, 24, 0), (0, -24, -5), (0, 5, 24))
    coils = []
    for number, (a, b, c) in enumerate(centres):
        far = ((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 20**2
        turned = number * 1.3 + 0.002 * (a * x + b * y + c * z)
        sensitivity = 60.0 / (1 + far) * torch.ones_like(x)
        signal = _signal(times, sensitivity) * torch.polar(torch.ones_like(turned), turned)
        coils.append(_noisy(signal, number))
    signal = torch.stack(coils)
    return CoilScan(signal.angle(), signal.abs(), times, B0, GEOMETRY)


def test_coils_are_combined_without_their_offsets() -> None:
    coils, mask = _coils(), _mask()
    scan = COILS(coils, mask)
    assert scan.offset_removed
    error, noise = _field_error(scan, mask)
    error = error - error.median()
    assert float(error.abs().max()) < 0.05
    # as little noise as the root sum of squares promises
    assert float((error / noise).std()) < 1.3
    gain = scan.magnitude[:, mask] / coils.sum_of_squares[:, mask]
    assert float(gain.median()) > 0.99
    # one coil alone is noisier, and simple sums cancel
    alone = Scan(coils.wrapped_phase[0], coils.magnitude[0], TIMES, B0, GEOMETRY)
    single, _ = _field_error(MONOPOLAR(alone, mask), mask)
    assert float(single.std()) > 1.5 * float(error.std())


def test_coils_that_make_no_scan_are_refused() -> None:
    with pytest.raises(InconsistentError, match="one echo"):
        COILS(_coils(TIMES[:1]), _mask())
    with pytest.raises(ValueError, match="echo times"):
        CoilScan(torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 3, 4, 4, 4), TIMES, B0, GEOMETRY)
    with pytest.raises((ValueError, TypeError), match=r"shapes|magnitude"):
        CoilScan(torch.zeros(2, 4, 4, 4, 4), torch.zeros(2, 3, 4, 4, 4), TIMES, B0, GEOMETRY)
