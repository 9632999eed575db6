"""Fluid found in R2*: the ventricles, not surface nor noise; refused where there is none."""

import pytest
import torch

from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.mask.csf import find_csf

GEOMETRY = Geometry((2.0, 2.0, 3.0), (0.0, 0.0, 1.0))
SHAPE = (48, 50, 36)


def _ball(centre: tuple[float, float, float], radius: float) -> torch.Tensor:
    """In mm from the middle of the grid."""
    axes = [
        (torch.arange(n) - n / 2) * edge - c
        for n, edge, c in zip(SHAPE, GEOMETRY.voxel_size, centre, strict=True)
    ]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return (x**2 + y**2 + z**2).sqrt() < radius


BRAIN = _ball((0, 0, 0), 45)
VENTRICLES = _ball((8, 4, 0), 6) | _ball((-8, 4, 0), 6)
HORN = _ball((8, 14, 0), 6) | _ball((8, 24, 0), 6)  # leads out of the central sphere


def _r2star(fluid: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return torch.where(fluid, 1.5, 20.0) + noise


def test_finds_connected_fluid_that_reaches_the_middle() -> None:
    surface = BRAIN & ~_ball((0, 0, 0), 40)
    elsewhere = _ball((0, -28, 22), 5)
    found = find_csf(_r2star(VENTRICLES | HORN | surface | elsewhere), BRAIN, GEOMETRY)
    wanted = (VENTRICLES | HORN) & _ball((0, 0, 0), 34)
    assert not (found & ~(VENTRICLES | HORN)).any()
    assert (found & wanted).sum() > 0.97 * wanted.sum()


def test_what_is_not_a_number_is_not_fluid() -> None:
    r2star = _r2star(VENTRICLES)
    r2star[BRAIN & _ball((0, 0, -12), 5)] = float("nan")
    assert not (find_csf(r2star, BRAIN, GEOMETRY) & ~VENTRICLES).any()


@pytest.mark.parametrize(
    "fluid", [torch.zeros_like(BRAIN), BRAIN], ids=["no fluid", "all of the brain"]
)
def test_refuses_what_are_no_ventricles(fluid: torch.Tensor) -> None:
    with pytest.raises(InconsistentError, match="not the ventricles"):
        find_csf(_r2star(fluid), BRAIN, GEOMETRY)
