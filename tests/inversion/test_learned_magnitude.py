"""A network that was trained with a magnitude, from disk, with and without one."""

import json
from dataclasses import replace

import pytest
import torch
from test_learned import OBLIQUE, SHAPE, SMALL, scan

from qsmnet.geometry import Geometry
from qsmnet.inversion.learned import LearnedInverter
from qsmnet.networks.unrolled import Unrolled
from qsmnet.weights.store import load_weights, save_weights

TARGET = "qsmnet.networks.unrolled.Unrolled"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Weights of a network that wants a magnitude, and of one that does not."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for magnitude in (True, False):
        torch.manual_seed(0)
        state = Unrolled(**SMALL, magnitude=magnitude).state_dict()
        state = {k: 0.1 * torch.randn_like(v) for k, v in state.items()}
        paths[magnitude] = folder / f"{magnitude}.safetensors"
        config = {"_target_": TARGET, **SMALL, **({"magnitude": True} if magnitude else {})}
        save_weights(paths[magnitude], state, {"network": config})
    return paths


@pytest.fixture(scope="module")
def local():
    generator = torch.Generator().manual_seed(4)
    return scan(magnitude=100 * (0.3 + torch.rand(SHAPE, generator=generator)))


def test_card_round_trip(saved):
    assert json.loads(saved[True].with_suffix(".json").read_text())["network"]["magnitude"] is True
    assert [load_weights(saved[each])[0].magnitude for each in (True, False)] == [True, False]


def test_it_is_seen_and_its_unit_does_not_matter(saved, local):
    inverter = LearnedInverter(str(saved[True]))
    chi = inverter(local).chi
    assert inverter(local).flags == ()
    brighter = inverter(replace(local, magnitude=7 * local.magnitude)).chi
    assert torch.allclose(brighter, chi, rtol=0, atol=1e-6)
    other = inverter(replace(local, magnitude=local.magnitude.flip(0))).chi
    assert float((other - chi).norm()) > 1e-3 * float(chi.norm())


def test_without_one_there_is_a_map_and_a_flag(saved, local):
    result = LearnedInverter(str(saved[True]))(replace(local, magnitude=None))
    assert result.chi.isfinite().all()
    (flag,) = result.flags
    assert flag.startswith("no magnitude")


def test_a_network_that_does_not_want_it_is_the_same_with_it(saved, local):
    inverter = LearnedInverter(str(saved[False]))
    with_it, without = inverter(local), inverter(replace(local, magnitude=None))
    assert torch.equal(with_it.chi, without.chi)
    assert with_it.flags == without.flags == ()


def test_its_axes_go_with_those_of_the_field(saved, local):
    order, inverter = (1, 2, 0), LearnedInverter(str(saved[True]))
    voxel, b0 = (tuple(v[i] for i in order) for v in (OBLIQUE.voxel_size, OBLIQUE.b0_dir))
    field, mask, magnitude = (v.permute(order) for v in (local.field, local.mask, local.magnitude))
    turned = replace(
        local, field=field, mask=mask, magnitude=magnitude, geometry=Geometry(voxel, b0)
    )
    back = inverter(turned).chi.permute([order.index(axis) for axis in range(3)])
    assert torch.allclose(back, inverter(local).chi, rtol=0, atol=1e-6)


def test_each_of_a_batch_has_its_own(saved, local):
    inverter = LearnedInverter(str(saved[True]))
    volumes = ("field", "mask", "magnitude")
    two = {name: torch.stack([getattr(local, name)] * 2) for name in volumes}
    two["magnitude"][1] = local.magnitude.flip(0)
    chi = inverter(replace(local, **two)).chi
    for i in range(2):
        single = replace(local, magnitude=two["magnitude"][i])
        assert torch.equal(inverter(single).chi, chi[i])
