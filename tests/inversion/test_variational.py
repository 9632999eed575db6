"""What the methods have in common that minimise a data term and a prior."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.inversion.hdqsm import HDQSM
from qsmnet.inversion.l1 import L1
from qsmnet.inversion.nltv import NonlinearTV
from qsmnet.inversion.tgv import TGV
from qsmnet.inversion.tv import TV
from qsmnet.inversion.variational import Variational
from qsmnet.volumes import LocalField

METHODS = (TV, NonlinearTV, L1, HDQSM, TGV)
every_method = pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)


def harmonic(local: LocalField, size: float) -> torch.Tensor:
    """A polynomial without Laplacian, of the given root mean square in the mask."""
    unit = [torch.linspace(-1, 1, n) for n in local.mask.shape]
    x, y, z = torch.meshgrid(*unit, indexing="ij")
    # the axes' scales differ: xy, xz, yz and their like are harmonic all the same
    field = x * y + 0.7 * x * z - 0.4 * y * z + 0.3 * x + 0.5 * x * y * z
    return field * (size / field[local.mask].square().mean().sqrt())


@every_method
def test_weak_harmonic_takes_up_a_background(kind: type[Variational], phantom: Callable) -> None:
    """An added harmonic field of half the data's spread leaves chi as it was."""
    local = replace(phantom(noise=0.001).local, radians_per_ppm=17.0)
    spread = float(local.field[local.mask].std())
    spoiled = replace(local, field=local.field + harmonic(local, 0.5 * spread) * local.mask)
    options = {"max_iterations": 100, "tolerance": 1e-3}
    changes = []
    for beta in (0.0, 300.0):
        method = kind(weak_harmonic=beta, **options)
        reference, chi = (method(each).chi for each in (local, spoiled))
        changes.append(float((chi - reference).norm() / reference.norm()))
    assert changes[0] > 0.15
    assert changes[1] < 0.05


@every_method
def test_constant_is_free_or_not(kind: type[Variational], phantom: Callable) -> None:
    local = replace(phantom((24, 25, 26)).local, radians_per_ppm=17.0)
    shifted = replace(local, field=(local.field + 0.05) * local.mask)
    free, fixed = (kind(constant=each, max_iterations=60) for each in (True, False))
    reference = free(local).chi
    assert (free(shifted).chi - reference).norm() < 0.05 * reference.norm()
    assert (fixed(shifted).chi - reference).norm() > 0.3 * reference.norm()


@every_method
def test_lambda_does_not_hang_on_the_grid(kind: type[Variational], phantom: Callable) -> None:
    """One object on voxels of 1 and 0.5 mm: the same lambda shrinks both alike."""
    coarse = phantom((20, 20, 20))
    fine = coarse.chi
    for axis in range(3):
        fine = fine.repeat_interleave(2, axis)
    mask = fine != 0
    geometry = Geometry((0.5, 0.5, 0.5), coarse.local.geometry.b0_dir)
    field = Dipole(fine.shape, geometry, padding=2.0).forward(fine) * mask
    local = LocalField(field, mask, geometry, radians_per_ppm=17.0)
    strength = 0.5 if kind is L1 else 1e-3
    method = kind(regularisation=strength, max_iterations=40, tolerance=1e-3)
    shrunk = [
        float((method(each).chi * truth).sum() / truth.square().sum())
        for each, truth in (
            (replace(coarse.local, radians_per_ppm=17.0), coarse.chi),
            (local, fine),
        )
    ]
    assert shrunk[0] < 0.95
    assert shrunk[1] == pytest.approx(shrunk[0], abs=0.09)


@every_method
def test_lambda_grows_with_the_noise(kind: type[Variational], phantom: Callable) -> None:
    local = phantom((20, 21, 22), noise=0.002).local
    method = kind(regularisation=1e-4, noise_gain=0.05)
    assert method.weight_of_gradient(local) == pytest.approx(1e-4 + 0.05 * 0.002)
    assert method.weight_of_gradient(replace(local, noise=None)) == 1e-4


@every_method
def test_starts_from_a_given_map(kind: type[Variational], phantom: Callable) -> None:
    local = phantom((24, 25, 26), noise=0.001).local
    solution = kind(max_iterations=60, tolerance=0.0)(local).chi
    few = kind(max_iterations=5, tolerance=0.0)
    cold, warm = few(local).chi, few(local, initial=solution).chi
    assert (warm - solution).norm() < (cold - solution).norm()


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
@every_method
def test_refuses_a_wrong_weak_harmonic(kind: type[Variational], wrong: float) -> None:
    with pytest.raises(ValueError, match="weak_harmonic"):
        kind(weak_harmonic=wrong)


def test_weak_harmonic_needs_weights() -> None:
    with pytest.raises(ValueError, match="outside"):
        TV(weak_harmonic=100.0, outside="zero")
