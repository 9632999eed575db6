"""Tikhonov's closed form against its definition, and what its lambda means."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.inversion.tikhonov import Tikhonov
from qsmnet.volumes import LocalField

GEOMETRY = Geometry((1.0, 1.1, 1.3), (0.15, -0.2, 0.95))
SHAPE = (12, 15, 10)


def periodic(field: torch.Tensor, geometry: Geometry = GEOMETRY) -> LocalField:
    return LocalField(field, torch.ones(field.shape, dtype=torch.bool), geometry)


def test_gradient_vanishes() -> None:
    """(D^2 + lambda) chi = D b on a periodic grid: the minimum of the stated objective."""
    field = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    chi = Tikhonov(0.03)(periodic(field)).chi
    dipole = Dipole(SHAPE, GEOMETRY)
    residual = dipole.normal(chi) + 0.03 * chi - dipole.adjoint(field)
    assert residual.abs().max() < 1e-5


def test_exact_without_noise_as_lambda_vanishes() -> None:
    chi = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    dipole = Dipole(SHAPE, GEOMETRY)
    well_posed = dipole.filter(chi, (dipole.spectrum.abs() > 0.1).float())
    found = Tikhonov(1e-6)(periodic(dipole.forward(well_posed))).chi
    torch.testing.assert_close(found, well_posed, rtol=0, atol=2e-3)


def test_lambda_has_no_unit(phantom: Callable) -> None:
    """It moves neither with the unit of the field nor with that of length."""
    local = phantom((24, 25, 26)).local
    reference = Tikhonov()(local).chi
    larger = replace(local, field=local.field * 1000)
    torch.testing.assert_close(Tikhonov()(larger).chi / 1000, reference, rtol=0, atol=1e-6)
    coarser = Geometry(tuple(2 * d for d in local.geometry.voxel_size), local.geometry.b0_dir)
    torch.testing.assert_close(
        Tikhonov()(replace(local, geometry=coarser)).chi, reference, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_best_lambda_is_the_ratio_of_variances(noise: float) -> None:
    generator = torch.Generator().manual_seed(2)
    chi = torch.randn((24, 25, 27), generator=generator)
    field = Dipole(chi.shape, GEOMETRY).forward(chi)
    dipole = Dipole(chi.shape, GEOMETRY)  # the mean of chi is in no field
    chi = dipole.filter(chi, (dipole.spectrum != 0).float())
    local = periodic(field + noise * torch.randn(chi.shape, generator=generator))
    errors = {f: float((Tikhonov(f * noise**2)(local).chi - chi).norm()) for f in (0.25, 1.0, 4.0)}
    assert errors[1.0] < min(errors[0.25], errors[4.0])


@pytest.mark.parametrize("regularisation", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_lambda_that_is_not_positive(regularisation: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Tikhonov(regularisation)


@pytest.mark.parametrize("padding", [0.0, 9.0, float("nan"), float("inf")])
def test_refuses_a_padding_out_of_range(padding: float) -> None:
    with pytest.raises(ValueError, match="padding"):
        Tikhonov(padding=padding)
