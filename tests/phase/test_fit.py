"""Lines and complex fits: right noise, and what single bad echoes do to them."""

import math
from itertools import pairwise

import pytest
import torch

from qsmnet.cli.compose import available, compose
from qsmnet.geometry import Geometry
from qsmnet.phase.fit_complex import ComplexFit
from qsmnet.phase.fit_line import LineFit
from qsmnet.phase.scale import wrap
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Scan

SHAPE, B0 = (24, 23, 22), 3.0
GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
TIMES = (0.005, 0.011, 0.017, 0.023, 0.029)
ALL = torch.ones(SHAPE, dtype=torch.bool)
METHODS = [compose("fit", name) for name in available("fit")]
FITS = [*METHODS, LineFit(0.0), ComplexFit(0.0)]


def _field() -> torch.Tensor:
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return 0.3 * axes[0] * axes[1] + 0.2 * axes[2] ** 2


def _scan(sigma: float, offset: float | None, r2star: float = 20.0) -> tuple[Scan, torch.Tensor]:
    """A scan, and its phase with the turns that were taken; None is an offset that was removed."""
    generator = torch.Generator().manual_seed(0)
    times = torch.tensor(TIMES).view(-1, 1, 1, 1)
    phase = radians_per_ppm(1.0, B0) * times * _field() + (offset or 0.0)
    size = 100 * torch.exp(-r2star * times) * torch.ones_like(phase)
    parts = sigma * torch.randn(2, *phase.shape, generator=generator)
    signal = torch.polar(size, phase) + torch.complex(parts[0], parts[1])
    scan = Scan(signal.angle(), signal.abs(), TIMES, B0, GEOMETRY, offset is None)
    return scan, phase + wrap(signal.angle() - phase)


@pytest.mark.parametrize("fit", FITS, ids=repr)
@pytest.mark.parametrize("offset", [None, 1.1])
def test_without_noise_the_field_is_exact(fit, offset) -> None:
    scan, phase = _scan(0.0, offset)
    assert float((fit(scan, phase, ALL).field - _field()).abs().max()) < 1e-5


@pytest.mark.parametrize("fit", FITS, ids=repr)
@pytest.mark.parametrize("offset", [None, 1.1])
def test_the_noise_is_what_the_map_says(fit, offset) -> None:
    scan, phase = _scan(2.0, offset)
    total = fit(scan, phase, ALL)
    assert isinstance(total.noise, torch.Tensor)
    ratio = (total.field - _field()) / total.noise
    assert float(ratio.std()) == pytest.approx(1, abs=0.04)
    assert float(ratio.mean().abs()) < 0.05


def test_noise_weights_are_the_best_and_dephasing_costs_little() -> None:
    scan, phase = _scan(2.0, None)
    best, kept, strict = (float(LineFit(d)(scan, phase, ALL).noise.mean()) for d in (0, 2, 12))
    assert best < kept < 1.05 * best < strict


@pytest.mark.parametrize("fit", FITS, ids=repr)
@pytest.mark.parametrize("offset", [None, 0.4])
def test_a_late_echo_at_the_noise_does_not_count(fit, offset) -> None:
    scan, phase = _scan(0.5, offset, r2star=40.0)
    clean = fit(scan, phase, ALL).field
    scan.magnitude[4] = 0.5
    phase[4] += math.pi * (torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) - 0.5)
    assert float((fit(scan, phase, ALL).field - clean).std()) < 2e-3


def test_the_complex_fit_bounds_what_a_wrong_turn_does() -> None:
    scan, phase = _scan(0.5, None)
    scan.magnitude[3] *= 0.3
    phase[3] += 2 * math.pi
    line, nonlinear = LineFit(0.0), ComplexFit(0.0)
    errors = [float((f(scan, phase, ALL).field - _field()).abs().mean()) for f in (line, nonlinear)]
    assert errors[1] < 0.05 * errors[0]


def test_no_step_of_the_complex_fit_raises_the_misfit() -> None:
    scan, phase = _scan(60.0, None)  # as much noise as signal
    times = radians_per_ppm(1.0, B0) * torch.tensor(TIMES).view(-1, 1, 1, 1)
    misfits = []
    for steps in (1, 2, 4, 8, 30):
        field = ComplexFit(0.0, iterations=steps, tolerance=1e-9)(scan, phase, ALL).field
        misfits.append(-(scan.magnitude**2 * (phase - times * field).cos()).sum(0))
    for earlier, later in pairwise(misfits):
        assert float((later - earlier).max()) < 1e-3 * float(earlier.abs().mean())
    assert float((misfits[-1] - misfits[0]).mean()) < 0


@pytest.mark.parametrize("fit", METHODS, ids=repr)
def test_a_voxel_without_signal_is_finite(fit) -> None:
    for offset in (None, 0.5):
        scan, phase = _scan(1.0, offset)
        scan.magnitude[:, 5, 5, 5] = 0
        total = fit(scan, phase, ALL)
        assert bool(total.field.isfinite().all())
        assert bool(total.noise.isfinite().all())


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", [LineFit, ComplexFit])
def test_bad_parameters_are_refused(kind, bad) -> None:
    with pytest.raises(ValueError, match="dephasing"):
        kind(dephasing=bad)
    if kind is ComplexFit:
        with pytest.raises(ValueError, match="tolerance"):
            ComplexFit(tolerance=bad)
        with pytest.raises(ValueError, match="iterations"):
            ComplexFit(iterations=0)
