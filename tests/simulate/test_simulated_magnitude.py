"""The magnitude of a scene: tissue, decay, coils and noise, and the signals that the field had."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qsmnet.simulate import magnitude
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.corruptions.signal_noise import SignalNoise
from qsmnet.simulate.head.tissues import relaxivity
from qsmnet.simulate.magnitude import draw_magnitude, render_magnitude
from qsmnet.simulate.phantom import Phantom
from qsmnet.simulate.primitives import Primitives
from qsmnet.simulate.simulator import Simulator
from qsmnet.units import radians_per_ppm

SHAPE = (18, 20, 16)
SIGNAL_NOISE = {"any name": SignalNoise(probability=1.0)}
QUIET = {"bias": 0.0, "texture": 0.0, "blur": 0.0}


def drawn(**changes):
    return {**draw_magnitude(np.random.default_rng(3)), **changes}


def signals(values, decay=2.0):
    return {"signal": [*values, *[0.5] * (32 - len(values))], "decay": decay, "seed": 5}


def scene(chi=None, labels=None, corruptions=None, variation=0.0, **acquisition):
    """Two halves of tissue in a mask that leaves a rim, without noise unless it is asked for."""
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[2:-2, 2:-2, 2:-2] = True
    if labels is None:
        labels = torch.ones(SHAPE, dtype=torch.uint8)
        labels[9:] = 2
    chi = torch.zeros(SHAPE) if chi is None else chi
    settings = {"voxel_size": (1.0, 1.2, 1.5), "noise_free": 1.0, "unmasked": 0.0, "voids": 0.0}
    simulator = Simulator(
        {"solids": Primitives()},
        acquisition=Acquisition(**settings | acquisition),
        shape=SHAPE,
        corruptions=corruptions or {},
    )
    record = simulator.draw(1, "test", 0)
    record["acquisition"]["noise"]["variation"] = variation
    return simulator.measure([Phantom(chi * mask, mask, labels * mask)], [record])[0]


@pytest.fixture
def noiseless(monkeypatch):
    monkeypatch.setattr(magnitude, "NOISE", (0.0, 0.25))


def test_a_record_makes_the_same_magnitude_in_the_mask_alone():
    found = scene()
    volume = render_magnitude(drawn(), found, {})
    assert torch.equal(volume, render_magnitude(drawn(), found, {}))
    # no voxel in it is without noise
    assert torch.equal(volume > 0, found.mask)


@pytest.mark.usefixtures("noiseless")
def test_tissues_have_their_signals_and_susceptibility_takes_of_them():
    chi = torch.zeros(SHAPE)
    chi[4, 4, 4], chi[12, 5, 5], chi[12, 6, 5] = 0.5, 0.5, -0.5
    record = drawn(**QUIET, signals=signals([0.0, 1.0, 0.4], decay=2.0))
    volume = render_magnitude(record, scene(chi), {})
    decay = float(np.exp(-1))
    places = [(5, 5, 5), (13, 5, 5), (4, 4, 4), (12, 5, 5), (12, 6, 5)]
    expected = [1.0, 0.4, decay, 0.4 * decay, 0.4 * decay]
    assert [float(volume[at]) for at in places] == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("noiseless")
def test_without_labels_levels_of_susceptibility_are_tissue():
    chi = torch.zeros(SHAPE)
    chi[9:] = 0.1
    none = torch.zeros(SHAPE, dtype=torch.uint8)
    record = drawn(**QUIET, signals=signals([1.0, 0.3], decay=0.0))
    volume = render_magnitude(record, scene(chi, none), {})
    assert [float(volume[x, 8, 8]) for x in (5, 12)] == pytest.approx([1.0, 0.3], rel=1e-4)


@pytest.mark.usefixtures("noiseless")
def test_it_is_low_where_the_noise_of_the_field_is_high():
    """By tissue, decay, coils and voids: their product is one number."""
    chi = 0.2 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    noisy = {"noise": (1e-4, 1e-4), "noise_free": 0.0, "strongly_noisy": 0.0, "voids": 1.0}
    found = scene(chi, None, SIGNAL_NOISE, 0.3, **noisy)
    inside = found.mask
    # the thermal noise of the magnitude is not its question
    found = replace(found, record=_without_level(found.record))
    product = (render_magnitude(drawn(**QUIET), found, SIGNAL_NOISE) * found.noise)[inside]
    assert float(found.noise[inside].max() / found.noise[inside].min()) > 5
    assert float(product.std() / product.mean()) < 1e-4


def _without_level(record):
    acquisition = record["acquisition"]
    quiet = {**acquisition, "noise": {**acquisition["noise"], "level": 0.0}}
    return {**record, "acquisition": quiet}


def test_noise_is_that_of_a_field_of_the_same_phase():
    """At 3 T and 20 ms a field's noise times the phase that 1 ppm makes is the signal's."""
    level, time = 2e-3, 0.02
    flat = torch.ones(SHAPE, dtype=torch.uint8)
    found = scene(None, flat, noise=(level, level), noise_free=0.0, strongly_noisy=0.0)
    record = drawn(**QUIET, signals=signals([0.0, 1.0], decay=relaxivity(3.0) * time))
    values = render_magnitude(record, found, {})[found.mask]
    assert float(values.mean()) == pytest.approx(1, abs=0.01)
    assert float(values.std()) == pytest.approx(level * radians_per_ppm(time, 3.0), rel=0.1)


def test_partial_volume_is_between_its_neighbours():
    record = drawn(**QUIET | {"blur": 0.6}, signals=signals([0.0, 1.0, 0.4], decay=0.0))
    along = render_magnitude(record, scene(), {})[:, 8, 8]
    assert float(along[5]) == pytest.approx(1, abs=0.03)
    assert float(along[13]) == pytest.approx(0.4, abs=0.03)
    # a third of the neighbours are of the other tissue
    assert float(along[8]) == pytest.approx(1 - 0.6 * 0.2, abs=0.03)
    # the rim of the mask is not mixed with nothing
    assert float(along[2]) == pytest.approx(1, abs=0.03)


@pytest.mark.usefixtures("noiseless")
def test_little_is_left_where_the_field_was_lost():
    whole = scene()
    support = whole.field_support.clone()
    support[6, 8, 8] = False
    holed = replace(whole, field_support=support)
    record = drawn(**QUIET, left=0.25)
    left, all_of_it = (float(render_magnitude(record, s, {})[6, 8, 8]) for s in (holed, whole))
    assert left == pytest.approx(0.25 * all_of_it, rel=1e-4)
