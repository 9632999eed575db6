"""Decay rates of exponentials, with and without noise."""

import math

import pytest
import torch

from qsmnet.cli.compose import available, compose
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.r2star.arlo import Arlo
from qsmnet.r2star.log_linear import LogLinear
from qsmnet.r2star.nlls import Nlls
from qsmnet.volumes import Scan

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
EVEN, UNEVEN = (0.004, 0.010, 0.016, 0.022, 0.028), (0.003, 0.007, 0.013, 0.024)
METHODS = [compose("r2star", name) for name in available("r2star")]
SHAPE = (12, 11, 10)


def _rates() -> torch.Tensor:
    return torch.linspace(3.0, 150.0, math.prod(SHAPE)).reshape(SHAPE)


def _scan(
    echo_times: tuple[float, ...], sigma: float = 0.0, rates: torch.Tensor | None = None
) -> Scan:
    generator = torch.Generator().manual_seed(0)
    rates = _rates() if rates is None else rates
    signal = 1e-3 * torch.stack([torch.exp(-t * rates.double()) for t in echo_times])
    noise = torch.randn(2, *signal.shape, generator=generator, dtype=torch.float64) * sigma
    signal = torch.complex(signal + noise[0], noise[1])
    return Scan(signal.angle().float(), signal.abs().float(), echo_times, 3.0, GEOMETRY)


ALL = torch.ones(SHAPE, dtype=torch.bool)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_an_exponential_gives_its_rate(method) -> None:
    assert torch.allclose(method(_scan(EVEN), ALL), _rates(), rtol=2e-4)


def test_arlo_is_exact_on_an_exponential() -> None:
    scan = _scan(EVEN)
    exact = 1e-3 * torch.stack([torch.exp(-t * _rates().double()) for t in EVEN])
    # in double, since the rounding of the magnitude would hide what the method does
    object.__setattr__(scan, "magnitude", exact)
    error = Arlo()(scan, ALL) / _rates() - 1
    assert float(error.abs().max()) < 1e-6
    paper = Arlo(exact=False)(scan, ALL) / _rates() - 1
    x = _rates() * (EVEN[1] - EVEN[0])
    assert torch.allclose(paper, 3 * x.sinh() / (2 + x.cosh()) / x - 1, atol=1e-6)


@pytest.mark.parametrize("method", [LogLinear(), Nlls()], ids=lambda m: type(m).__name__)
def test_any_echo_times_do(method) -> None:
    assert torch.allclose(method(_scan(UNEVEN), ALL), _rates(), rtol=1e-3)
    assert torch.allclose(method(_scan(UNEVEN[:2]), ALL), _rates(), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_zero_outside_and_where_there_is_no_signal(method) -> None:
    scan, mask = _scan(EVEN), ALL.clone()
    mask[:4] = False
    scan.magnitude[:, 6, 5, 5] = 0
    rates = method(scan, mask)
    assert bool(rates.isfinite().all())
    assert float(rates[:4].abs().max()) == 0
    assert float(rates[6, 5, 5]) == 0
    assert float(rates[mask].min()) >= 0


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_unit_of_the_magnitude_does_not_matter(method) -> None:
    scan = _scan(EVEN, 1e-5)
    rates = method(scan, ALL)
    object.__setattr__(scan, "magnitude", scan.magnitude * 1e6)
    assert torch.allclose(method(scan, ALL), rates, rtol=1e-4)


def test_the_noise_floor_is_modelled() -> None:
    # 120 1/s, 40 times the noise at TE = 0: the last echo is at 1.4 times the noise
    scan = _scan(EVEN, 2.5e-5, torch.full(SHAPE, 120.0))
    with_floor = Nlls(noise=2.5e-5)(scan, ALL).median()
    without = Nlls(floor=False)(scan, ALL).median()
    assert float(with_floor) == pytest.approx(120, rel=0.01)
    assert float(without) < 119
    assert float(LogLinear()(scan, ALL).median()) < 119.5


def test_weights_follow_the_noise() -> None:
    scan = _scan(EVEN, 2e-5, torch.full(SHAPE, 40.0))
    spread = [float(method(scan, ALL).std()) for method in (LogLinear(), Nlls(), Arlo())]
    # the bound of an efficient estimator: sd of the slope of m^2-weighted logarithms
    t = torch.tensor(EVEN, dtype=torch.float64)
    weight = (1e-3 * torch.exp(-40 * t) / 2e-5) ** 2
    centred = t - (weight * t).sum() / weight.sum()
    bound = float((weight * centred**2).sum().rsqrt())
    assert spread[0] == pytest.approx(bound, rel=0.1)
    assert spread[1] == pytest.approx(bound, rel=0.1)
    assert spread[2] < 1.3 * bound


@pytest.mark.parametrize("echo_times", [UNEVEN, EVEN[:2]])
def test_arlo_refuses_uneven_and_few_echoes(echo_times) -> None:
    with pytest.raises(InconsistentError, match="echo times"):
        Arlo()(_scan(echo_times), ALL)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_one_echo_is_refused(method) -> None:
    with pytest.raises(InconsistentError, match="echo times"):
        method(_scan((0.004,)), ALL)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", [Arlo, LogLinear, Nlls])
def test_bad_parameters_are_refused(kind, bad) -> None:
    with pytest.raises(ValueError, match="most"):
        kind(most=bad)
    if kind is Nlls:
        with pytest.raises(ValueError, match="noise"):
            Nlls(noise=-1.0 if bad == 0 else bad)
