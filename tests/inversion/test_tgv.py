"""Total generalised variation: TV in its limit, and slopes without steps."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.inversion.tgv import TGV
from qsmnet.inversion.tv import TV


def test_is_tv_where_bends_cannot_be_paid(phantom: Callable) -> None:
    local = phantom((20, 21, 22), (0.9, 1.0, 1.4), noise=0.002).local
    options = {"max_iterations": 250, "tolerance": 0.0}
    linear = TV(**options)(local).chi
    chi = TGV(second_order=1e4, **options)(local).chi
    assert (chi - linear).norm() < 0.02 * linear.norm()


def test_slopes_come_out_better_than_with_tv(phantom: Callable) -> None:
    """Strongly regularised, TV flattens a quadratic slope into steps."""
    case = phantom(noise=0.0)
    mask = case.local.mask
    unit = [torch.linspace(-1, 1, n) for n in mask.shape]
    x, y, z = torch.meshgrid(*unit, indexing="ij")
    smooth = 0.1 * (x**2 + 0.5 * y * z + 0.5 * torch.sin(3 * z)) * mask
    field = Dipole(smooth.shape, case.local.geometry, padding=2.0).forward(smooth)
    case = replace(case, chi=smooth, local=replace(case.local, field=field * mask))
    options = {"regularisation": 1e-3, "max_iterations": 80, "tolerance": 1e-3}
    assert case.error(TGV(**options)(case.local).chi) < 0.8 * case.error(
        TV(**options)(case.local).chi
    )


def test_nonlinear_term_at_the_end(phantom: Callable) -> None:
    """Turned voxels hardly matter; without the phase it says that it was linear."""
    case = phantom((24, 25, 26), noise=0.001)
    wrong = torch.rand(case.chi.shape, generator=torch.Generator().manual_seed(2)) < 0.005
    field = case.local.field + (wrong & case.local.mask) * (2 * math.pi / 17.0)
    spoiled = replace(case.local, field=field, radians_per_ppm=17.0)
    method = TGV(nonlinear=True)
    assert case.error(method(spoiled).chi) < 0.7 * case.error(TGV()(spoiled).chi)
    assert "radians_per_ppm" in method(case.local).flags[0]
    assert not TGV()(case.local).flags


def test_refuses_a_length_that_is_none() -> None:
    for wrong in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="second_order"):
            TGV(second_order=wrong)
