"""What every corruption of the configs keeps: its share, its record, zeros where nothing is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qsmnet.cli.compose import compose
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.corruptions.corruption import Corruption
from qsmnet.simulate.simulator import Simulator

CORRUPTIONS = compose("simulator", "anatomy").corruptions
ACQUISITION = Acquisition(
    voxel_size=(2.2, 2.0, 2.4),
    b0_dir=(0.2, -0.3, 0.93),
    noise=(1e-3, 1e-3),
    noise_free=0.0,
    voids=0.0,
    unmasked=0.0,
)
VOLUMES = ("chi", "mask", "segmentation", "local_field", "noise", "field_support")


def simulator(corruptions, **changes):
    acquisition = replace(ACQUISITION, **changes)
    brain = {"brain": Brain(erosion=0)}
    return Simulator(brain, None, acquisition, (28, 32, 26), corruptions=corruptions)


def certain(corruption):
    return replace(corruption, probability=1.0)


def same(one, other):
    return all(torch.equal(getattr(one, v), getattr(other, v)) for v in VOLUMES)


@pytest.fixture(scope="module", params=sorted(CORRUPTIONS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def corruption(name):
    return CORRUPTIONS[name]


@pytest.fixture(scope="module")
def pair(corruption):
    """Scenes without and with the corruption, of one record."""
    corrupting = simulator({"it": certain(corruption)})
    record = json.loads(json.dumps(corrupting.draw(2, "test", 0)))
    return corrupting.render({**record, "corruptions": {}}), corrupting.render(record), record


def test_it_is_one(corruption):
    assert isinstance(corruption, Corruption)


def test_it_leaves_its_share_alone(corruption):
    drawn = [corruption.draw(np.random.default_rng(i)) for i in range(400)]
    share = sum(each is not None for each in drawn) / 400
    assert share == pytest.approx(corruption.probability, abs=0.1)
    never = replace(corruption, probability=0.0)
    assert all(never.draw(np.random.default_rng(i)) is None for i in range(50))


def test_none_is_exactly_nothing(corruption):
    with_it = simulator({"it": replace(corruption, probability=0.0)})
    without = simulator({})
    assert same(with_it.scene(2, 0), without.scene(2, 0))


def test_a_record_makes_the_same_scene(corruption, pair):
    _, scene, record = pair
    again = simulator({"it": certain(corruption)}).render(record)
    assert same(scene, again)


def test_it_changes_something(pair):
    before, after, _ = pair
    assert not same(before, after)


def test_zero_where_nothing_is_known(pair):
    _, scene, _ = pair
    assert not scene.local_field[~scene.field_support].any()
    assert not scene.chi[~scene.mask].any()
    assert not scene.segmentation[~scene.mask].any()
    assert not (scene.field_support & ~scene.mask).any()
    assert torch.isfinite(scene.local_field).all()
    assert (scene.noise >= 0).all()


def test_a_field_that_is_known_outside_stays_so(corruption):
    scene = simulator({"it": certain(corruption)}, unmasked=1.0).scene(2, 0)
    holes = scene.mask.numel() - int(scene.field_support.sum())
    assert holes < 0.1 * scene.mask.numel()
    assert bool((scene.local_field[~scene.mask] != 0).any())


def test_it_scales_with_susceptibility(name, corruption):
    """All but the decay of signal, which is no matter of the field, are homogeneous."""
    if name == "signal_noise":
        pytest.skip("it is of noise, which does not scale")
    corrupting = simulator({"it": certain(corruption)}, noise_free=1.0)
    record = corrupting.draw(2, "test", 0)
    phantom = corrupting.phantom(record)
    one, three = (
        corrupting.measure([replace(phantom, chi=factor * phantom.chi)], [record])[0]
        for factor in (1.0, 3.0)
    )
    assert torch.equal(one.mask, three.mask)
    # conjugate gradients of a background removal end where rounding has a say
    difference = float((three.local_field - 3 * one.local_field).norm())
    assert difference < 5e-2 * float(three.local_field.norm())
    assert torch.allclose(three.noise, 3 * one.noise, rtol=1e-4)


def test_all_of_them_together():
    both = simulator({name: certain(each) for name, each in CORRUPTIONS.items()})
    for index in range(3):
        scene = both.scene(4, index)
        assert len(scene.record["corruptions"]) == len(CORRUPTIONS)
        assert bool(scene.mask.any())
        assert not scene.local_field[~scene.field_support].any()
        assert torch.isfinite(scene.local_field).all()
