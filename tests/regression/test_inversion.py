"""Inversion of the true noisy local field: no method gets worse than its bar."""

import pytest
import torch
from scores import assert_no_worse, bars, chi_scores

from qsmnet.cli.compose import available, compose, settings
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import LocalField

_BARS = bars("inversion")
CLASSICAL = [name for name in available("inverter") if "weights" not in settings("inverter", name)]


def local_field(head):
    """The brain's own field with the scan's noise, known in the brain."""
    generator = torch.Generator().manual_seed(0)
    noisy = head.local_field + head.noise * torch.randn(head.noise.shape, generator=generator)
    longest = radians_per_ppm(head.protocol.echo_times[-1], head.protocol.b0)
    return LocalField(
        noisy * head.mask,
        head.mask,
        head.geometry,
        noise=head.noise * head.mask,
        magnitude=head.magnitude.square().sum(0).sqrt(),
        radians_per_ppm=longest,
    )


def test_every_method_has_its_bar():
    assert set(_BARS["small"]) == set(CLASSICAL)


@pytest.mark.parametrize("name", CLASSICAL)
def test_small_head(name, small_head):
    chi = compose("inverter", name)(local_field(small_head)).chi
    assert_no_worse(chi_scores(chi, small_head.chi, small_head.mask), _BARS["small"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSICAL)
def test_full_head(name, full_head):
    chi = compose("inverter", name)(local_field(full_head)).chi
    assert_no_worse(chi_scores(chi, full_head.chi, full_head.mask), _BARS["full"][name])
