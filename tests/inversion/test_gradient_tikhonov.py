"""The closed form with a gradient prior against its definition, and what its lambda means."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.inversion.gradient import add_adjoint, difference
from qsmnet.inversion.gradient_tikhonov import GradientTikhonov
from qsmnet.volumes import LocalField

GEOMETRY = Geometry((1.0, 1.1, 1.3), (0.15, -0.2, 0.95))
SHAPE = (12, 15, 10)


def periodic(field: torch.Tensor, geometry: Geometry = GEOMETRY) -> LocalField:
    return LocalField(field, torch.ones(field.shape, dtype=torch.bool), geometry)


def test_gradient_vanishes() -> None:
    """(D^2 + lambda grad^T grad) chi = D b on a periodic grid, with gradients per mm."""
    field = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    chi = GradientTikhonov(0.3)(periodic(field)).chi
    dipole = Dipole(SHAPE, GEOMETRY)
    penalty = torch.zeros_like(chi)
    for axis, edge in enumerate(GEOMETRY.voxel_size):
        add_adjoint(penalty, difference(chi, axis), axis, 1 / edge**2)
    residual = dipole.normal(chi) + 0.3 * penalty - dipole.adjoint(field)
    assert residual.abs().max() < 1e-5
    assert chi.mean().abs() < 1e-6


def test_exact_without_noise_as_lambda_vanishes() -> None:
    chi = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    dipole = Dipole(SHAPE, GEOMETRY)
    well_posed = dipole.filter(chi, (dipole.spectrum.abs() > 0.1).float())
    found = GradientTikhonov(1e-7)(periodic(dipole.forward(well_posed))).chi
    torch.testing.assert_close(found, well_posed, rtol=0, atol=2e-3)


def test_lambda_is_in_square_mm(phantom: Callable) -> None:
    """Free of the field's unit; voxels twice as large want four times as much."""
    local = phantom((24, 25, 26)).local
    reference = GradientTikhonov(0.02)(local).chi
    larger = replace(local, field=local.field * 1000)
    chi = GradientTikhonov(0.02)(larger).chi / 1000
    torch.testing.assert_close(chi, reference, rtol=0, atol=1e-6)
    coarser = Geometry(tuple(2 * d for d in local.geometry.voxel_size), local.geometry.b0_dir)
    chi = GradientTikhonov(0.08)(replace(local, geometry=coarser)).chi
    torch.testing.assert_close(chi, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("regularisation", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_lambda_that_is_not_positive(regularisation: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        GradientTikhonov(regularisation)


@pytest.mark.parametrize("padding", [0.0, 9.0, float("nan")])
def test_refuses_a_padding_out_of_range(padding: float) -> None:
    with pytest.raises(ValueError, match="padding"):
        GradientTikhonov(padding=padding)
