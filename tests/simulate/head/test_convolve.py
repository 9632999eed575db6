"""The field of a large head is that of the dipole operator."""

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.simulate.head import convolve
from qsmnet.simulate.head.convolve import LargeDipole

CASES = [
    # even and odd sizes once padded, one to all six components
    ((20, 27, 24), Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0)), 1.5),
    ((25, 21, 31), Geometry((0.7, 0.8, 1.4), (0.1, 0.3, 0.9)), 1.4),
    ((20, 22, 24), Geometry((0.7, 0.7, 1.4), (0.0, 0.29, 0.956)), 1.0),
]


@pytest.mark.parametrize(("shape", "geometry", "padding"), CASES)
@pytest.mark.parametrize("piece", [1, 3000, 10**9])
def test_field_is_that_of_the_dipole_operator(shape, geometry, padding, piece, monkeypatch):
    monkeypatch.setattr(convolve, "_PIECE", piece)
    chi = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact = Dipole(shape, geometry, "prism", padding, torch.float64).forward(chi)
    large = LargeDipole(shape, geometry, padding)
    found = large.forward(chi)
    assert large.padded_shape == Dipole(shape, geometry, "prism", padding).padded_shape
    assert float((found - exact).abs().max()) < 2e-6 * float(exact.abs().max())
    assert torch.equal(large.forward(chi, first=7), found[..., 7:])


def test_octants_are_of_the_components_that_b0_needs():
    axial, _, tilted = (LargeDipole(*each).octants for each in CASES)
    assert set(axial) == {()}
    assert set(tilted) == {(), (1, 2)}
