"""Nonlinear total variation: TV where the phase is small, and what it makes of turns."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.inversion.nltv import NonlinearTV
from qsmnet.inversion.tv import TV

SCALE = 17.0  # rad/ppm: 3 T, 21 ms


def test_is_tv_for_small_phase(phantom: Callable) -> None:
    """With one lambda: division by s^2 keeps its meaning."""
    local = replace(phantom(noise=0.002).local, radians_per_ppm=1e-2)
    linear = TV(max_iterations=60, tolerance=0.0)(local).chi
    chi = NonlinearTV(linear_iterations=30, max_iterations=30, tolerance=0.0)(local).chi
    assert (chi - linear).norm() < 1e-3 * linear.norm()


def test_lambda_does_not_hang_on_the_echo_time(phantom: Callable) -> None:
    case = phantom(noise=0.002)
    maps = [
        NonlinearTV(tolerance=1e-3)(replace(case.local, radians_per_ppm=s)).chi for s in (5.0, 40.0)
    ]
    assert (maps[1] - maps[0]).norm() < 0.02 * maps[0].norm()


def test_scales_with_field_and_phase(phantom: Callable) -> None:
    local = replace(phantom(noise=0.001).local, radians_per_ppm=SCALE)
    reference = NonlinearTV()(local).chi
    scaled = replace(
        local, field=20 * local.field, noise=20 * local.noise, radians_per_ppm=SCALE / 20
    )
    chi = NonlinearTV(regularisation=20 * NonlinearTV().regularisation)(scaled).chi / 20
    assert (chi - reference).norm() < 1e-3 * reference.norm()


def test_whole_turns_in_the_data_hardly_matter(phantom: Callable) -> None:
    """One voxel in 200 a turn off, as a failed unwrap leaves them."""
    case = phantom(noise=0.001)
    generator = torch.Generator().manual_seed(2)
    wrong = (torch.rand(case.chi.shape, generator=generator) < 0.005) & case.local.mask
    spoiled = replace(
        case.local,
        field=case.local.field + wrong * (2 * math.pi / SCALE),
        radians_per_ppm=SCALE,
    )
    clean = case.error(TV()(case.local).chi)
    linear = case.error(TV()(spoiled).chi)
    nonlinear = case.error(NonlinearTV(max_iterations=80)(spoiled).chi)
    assert linear > 1.5 * clean
    assert nonlinear < 1.15 * clean


def test_strong_source_is_not_taken_for_turns(phantom: Callable) -> None:
    """A bleed whose field turns the phase several times, told by an unwrapped field."""
    case = phantom((36, 36, 36), bleed=1.0, noise=0.001)
    local = replace(case.local, radians_per_ppm=2 * SCALE)
    linear = case.error(TV()(local).chi)
    assert case.error(NonlinearTV()(local).chi) < 1.05 * linear


def test_says_where_it_is_linear(phantom: Callable) -> None:
    local = phantom(noise=0.001).local
    unknown = NonlinearTV()(local)
    assert torch.equal(unknown.chi, TV()(local).chi)
    assert len(unknown.flags) == 1
    assert "radians_per_ppm" in unknown.flags[0]
    assert not NonlinearTV()(replace(local, radians_per_ppm=SCALE)).flags


def test_refuses_no_linear_iterations() -> None:
    with pytest.raises(ValueError, match="linear_iterations"):
        NonlinearTV(linear_iterations=0)
