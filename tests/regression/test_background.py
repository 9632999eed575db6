"""Background removal from the true noisy total field: no method gets worse than its bar.

``nrmse`` is the error of the local field in %, about the means, 6.5 mm and more inside the brain,
where every method knows it; ``beyond_harmonic`` that without what is harmonic there, which no
method can tell from background; ``lost`` the share of the brain in % where the field is not known.
"""

from dataclasses import replace

import pytest
import torch
from scores import assert_no_worse, bars

from qsmnet.background.depth import depth_in_mask
from qsmnet.background.resharp import Resharp
from qsmnet.cli.compose import available, compose
from qsmnet.volumes import TotalField

_BARS = bars("background")
METHODS = available("background")
_DEEP = 6.5  # mm


def total_field(head):
    """The scan's field as a perfect fit would find it, with the scan's noise."""
    generator = torch.Generator().manual_seed(0)
    noisy = head.total_field + head.noise * torch.randn(head.noise.shape, generator=generator)
    return TotalField(noisy * head.mask, head.mask, head.geometry, noise=head.noise * head.mask)


def scores(local, head):
    deep = depth_in_mask(head.mask, head.geometry, _DEEP) > _DEEP
    deep &= local.mask
    truth = head.local_field[deep] - head.local_field[deep].mean()
    wrong = (local.field - head.local_field) * deep
    left = Resharp(4.0, 1e-5, tolerance=0.01)(TotalField(wrong, deep, head.geometry))
    spread = (wrong[deep] - wrong[deep].mean()).norm()
    return {
        "nrmse": 100 * float(spread / truth.norm()),
        "beyond_harmonic": 100 * float(left.field.norm() / truth.norm()),
        "lost": 100 * (1 - float(local.mask.sum() / head.mask.sum())),
    }


def test_every_method_has_its_bar():
    assert set(_BARS["small"]) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_small_head(name, small_head):
    local = compose("background", name)(total_field(small_head))
    assert_no_worse(scores(local, small_head), _BARS["small"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_full_head(name, full_head):
    local = compose("background", name)(total_field(full_head))
    assert_no_worse(scores(local, full_head), _BARS["full"][name])


def test_the_bars_would_notice(small_head):
    """A background left in place, a mask given up, a local field taken away."""
    method, total = compose("background", "vsharp"), total_field(small_head)
    bar = _BARS["small"]["vsharp"]
    for worse in (replace(method, threshold=0.3), replace(method, radii=(12, 8, 6))):
        with pytest.raises(AssertionError, match="worse"):
            assert_no_worse(scores(worse(total), small_head), bar)
