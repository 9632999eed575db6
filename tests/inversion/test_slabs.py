"""Slabs: all planes once, and no result that hangs on where they are cut."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from qsmnet.inversion import slabs
from qsmnet.inversion.inverter import Inverter
from qsmnet.inversion.medi import MEDI
from qsmnet.inversion.nltv import NonlinearTV
from qsmnet.inversion.rts import RTS
from qsmnet.inversion.slabs import Slabs, relative_change
from qsmnet.inversion.tv import TV

SHAPE = (7, 4, 5)
PLANE = 4 * 5 * 4  # bytes


@pytest.mark.parametrize(("planes", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (9, [7])])
def test_every_plane_once(planes: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", planes * PLANE + 3)
    cut = Slabs(torch.zeros(SHAPE), scratch=2)
    assert [plane for slab in cut for plane in range(slab.start, slab.stop)] == list(range(7))
    assert [len(cut.scratch(slab)[1]) for slab in cut] == sizes


def test_a_plane_too_large_is_a_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", PLANE - 1)
    assert len(list(Slabs(torch.zeros(SHAPE)))) == 7


def test_one_slab_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", PLANE)
    assert list(Slabs(torch.zeros(SHAPE, device="meta"))) == [slice(0, 7)]


def test_relative_change_is_that_of_the_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2 * PLANE)
    chi, previous = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).unbind()
    support = (chi > -0.5).float()
    inside = support > 0
    expected = float((chi - previous)[inside].norm() / chi[inside].norm())
    assert relative_change(chi, previous, support) == pytest.approx(expected, rel=1e-6)
    assert relative_change(torch.zeros(SHAPE), torch.zeros(SHAPE), support) == 0


METHODS = {
    "tv": TV(max_iterations=12),
    "tv_free": TV(support="free", max_iterations=12),
    "tv_harmonic": TV(weak_harmonic=10.0, max_iterations=12),
    "nltv": NonlinearTV(linear_iterations=6, max_iterations=6),
    "medi": MEDI(csf_weight=10.0, linear_iterations=6, max_iterations=6),
    "rts": RTS(max_iterations=12),
}


@pytest.mark.parametrize("size", [1, 8000], ids=["a_plane", "some_planes"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_cuts_leave_no_trace(
    method: Inverter, size: int, phantom: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes and voxels that are no cubes; fluid, edges and a mean that is fitted."""
    local = phantom((19, 22, 15), (0.8, 1.1, 1.9), noise=0.002).local
    csf = torch.zeros_like(local.mask)
    csf[8:12, 9:13, 6:9] = True
    magnitude = torch.rand(local.mask.shape, generator=torch.Generator().manual_seed(0))
    local = replace(local, csf=csf & local.mask, magnitude=magnitude, radians_per_ppm=15.0)
    whole = method(local).chi
    monkeypatch.setattr(slabs, "SLAB_BYTES", size)
    torch.testing.assert_close(method(local).chi, whole, rtol=1e-4, atol=2e-6)
