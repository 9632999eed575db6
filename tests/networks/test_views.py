"""A correction of several mirrored views: one cone, one network, no direction of its own."""

import pytest
import torch
from torch import nn

from qsmnet.dipole import dipole_spectrum
from qsmnet.geometry import Geometry
from qsmnet.networks.small_unet import SmallUNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.networks.views import VIEWS, averaged

SHAPE = (16, 16, 12)


@pytest.fixture
def prior(randomised):
    return randomised(SmallUNet(2, 4, 2, 1)).eval()


@pytest.fixture
def channels():
    return torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(2))


class Recorder(nn.Module):
    """Returns what it is given, and keeps it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, channels):
        self.seen.append(channels)
        return channels


@pytest.mark.parametrize("views", VIEWS)
def test_each_view_is_another_and_comes_back(views):
    volume, recorder = torch.arange(16 * 16 * 12.0).reshape(1, 1, *SHAPE), Recorder()
    assert torch.equal(averaged(recorder, volume, views), volume)
    assert len({tuple(each.flatten().tolist()) for each in recorder.seen}) == views


def test_no_view_changes_an_upright_cone():
    upright = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    half = torch.fft.fftshift(dipole_spectrum((15, 15, 11), upright), dim=(0, 1))
    spectrum = torch.cat((half[..., 1:].flip((0, 1, 2)), half), dim=2)[None, None]
    recorder = Recorder()
    averaged(recorder, spectrum, 8)
    assert all(torch.allclose(each, spectrum, atol=1e-6) for each in recorder.seen)


@pytest.mark.parametrize(
    ("views", "turn"),
    [
        (2, lambda v: v.flip((-3, -2, -1))),
        (4, lambda v: v.transpose(-3, -2)),
        (8, lambda v: v.flip((-1,))),
        (8, lambda v: v.flip((-3, -2)).transpose(-3, -2)),
    ],
)
@torch.no_grad()
def test_what_the_views_are_averaged_over_makes_no_difference(prior, channels, views, turn):
    straight = averaged(prior, channels, views)
    turned = averaged(prior, turn(channels), views)
    assert torch.allclose(turn(straight), turned, atol=1e-5 * float(straight.abs().max()))
    alone = averaged(prior, turn(channels), 1)
    assert not torch.allclose(turn(averaged(prior, channels, 1)), alone, rtol=0.01)


@torch.no_grad()
def test_network_averages_in_its_own_frame(case, randomised):
    """The first item is upright on its own grid, the second is turned."""
    settings = {"iterations": 1, "base": 4, "levels": 2, "convolutions": 1, "start": "tkd"}
    made = {views: Unrolled(**settings, views=views).eval() for views in (1, 2)}
    randomised(made[1])
    made[2].load_state_dict(made[1].state_dict())
    for index in range(2):
        one, two = (made[views](*case.item(index)) for views in (1, 2))
        assert not torch.allclose(one, two, rtol=0.01)
        mirrored = [v.flip((-3, -2, -1)) for v in case.item(index)[:4]]
        found = made[2](*mirrored, case.item(index)[4])
        assert torch.allclose(found.flip((-3, -2, -1)), two, atol=2e-3 * float(two.abs().max()))


def test_views_that_need_an_upright_cone_are_refused_elsewhere():
    Unrolled(views=2, upright=False)
    with pytest.raises(ValueError, match="set upright"):
        Unrolled(views=4, upright=False)


@pytest.mark.parametrize("views", [0, 3, 16])
def test_other_numbers_are_refused(views):
    with pytest.raises(ValueError, match="views must be one of 1, 2, 4, 8"):
        Unrolled(views=views)
