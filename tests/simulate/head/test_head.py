"""Whole heads: fields, signal, noise, records."""

import json
from dataclasses import replace

import pytest
import torch
from small_head import PROTOCOL

from qsmnet.dipole import Dipole
from qsmnet.errors import UsageError
from qsmnet.phase.echoes import fit_field
from qsmnet.phase.scale import wrap
from qsmnet.simulate import tissue
from qsmnet.simulate.acquisition import local_fields
from qsmnet.simulate.head.lesions import Lesion
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.simulate.head.signal import fit_shim, shim_field
from qsmnet.simulate.head.simulator import HeadSimulator
from qsmnet.simulate.head.tissues import PARTS, TISSUES
from qsmnet.units import radians_per_ppm


def eroded(mask, voxels=1):
    size = 2 * voxels + 1
    outside = (~mask).float()[None, None]
    return torch.nn.functional.max_pool3d(outside, size, 1, voxels)[0, 0] < 0.5


def test_every_tissue_of_a_head_is_drawn(scan):
    drawn = {tissue.NAMES[n] for n in scan.segmentation.unique().tolist()}
    # small ones may miss every voxel's middle at 4 mm
    missing = {each.label for each in TISSUES.values()} - {
        label for label in tissue.NAMES if tissue.NAMES[label] in drawn
    }
    assert missing <= {tissue.ARTERY, tissue.RED_NUCLEUS, tissue.NIGRA, tissue.DENTATE}
    assert {"air", "bone", "muscle", "fat", "skin", "eye", "mucosa", "marrow"} <= drawn


def test_air_is_in_the_head_and_around_it(scan):
    air = scan.segmentation == tissue.AIR
    assert air[0, 0].all()
    within = scan.mask.nonzero()
    low, high = within.amin(0), within.amax(0) + 1
    below = air[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    assert below.any()
    assert not (air & scan.mask).any()


def test_brain_has_the_size_of_one(scan):
    litres = float(scan.mask.sum()) * 64e-6
    assert 0.9 < litres < 1.9
    # no bone at its rim
    assert scan.chi[scan.mask].min() > -1.5


def test_names_of_tissues_are_those_of_labels():
    for name, each in TISSUES.items():
        if name != "brain stem":
            assert tissue.NAMES[each.label] == name
    assert set(PARTS.values()) <= TISSUES.keys()


def test_relaxation_at_both_fields():
    for each in TISSUES.values():
        assert each.r1(3.0) == pytest.approx(1 / each.t1[0])
        assert each.r2(7.0) == pytest.approx(1 / each.t2[1])
        assert each.r1(1.5) > 0
        assert each.r2(9.4) > 0


def test_steady_state_is_ernsts():
    long = replace(PROTOCOL, repetition_time=50.0, flip_angle=90.0)
    assert long.steady_state(1.0) == pytest.approx(1.0)
    best = replace(PROTOCOL, flip_angle=float(torch.rad2deg(torch.arccos(torch.tensor(0.97)))))
    r1 = -torch.log(torch.tensor(0.97)).item() / best.repetition_time
    others = [replace(best, flip_angle=best.flip_angle + d).steady_state(r1) for d in (-2, 2)]
    assert best.steady_state(r1) > max(others)


class Ball:
    """An anatomy for which the field is known: a ball of air in water, all of it 'brain'."""

    def __init__(self, radius, inside):
        self.radius, self.inside = radius, inside

    def draw(self, _rng, _grid):
        rotation = torch.eye(3).tolist()
        placement = {"scale": 1.0, "centre": [1.3, -0.7, 2.1], "rotation": rotation}
        return {"placement": placement, "softness": 1.0, "radii": [30.0, 30.0, 30.0]}

    def paint(self, _record, canvas):
        distance = canvas.points().square().sum(0).sqrt() - self.radius
        canvas.add("cerebrospinal fluid", torch.ones_like(distance))
        canvas.cover(self.inside, canvas.coverage(distance))
        canvas.brain = torch.ones_like(distance)


class BallSimulator(HeadSimulator):
    ball = Ball(10.0, "air")

    @property
    def anatomy(self):
        return self.ball


def quiet(record, **chi):
    """A record without texture and veins."""
    flat = dict.fromkeys(record["chi"], 0.0)
    texture = {**record["texture"], "strength": [0.0, 0.0]}
    return {**record, "chi": {**flat, **chi}, "vessels": {"veins": []}, "texture": texture}


@pytest.fixture(scope="module")
def ball_of_air():
    protocol = replace(PROTOCOL, shape=(40, 42, 44), voxel_size=(1.5, 1.4, 1.6), snr=None)
    made = BallSimulator(protocol, neck=0.0, padding=2.0)
    record = quiet(made.draw(1, "test", 0), air=9.4)
    return made, record, made.render(record)


def ball_field(made, scan, strength):
    """Analytic field in ppm of the ball, with its distance in mm."""
    points = made.protocol.grid.points() - torch.tensor([1.3, -0.7, 2.1]).reshape(3, 1, 1, 1)
    distance = points.square().sum(0).sqrt()
    b0 = torch.tensor(scan.geometry.b0_dir).reshape(3, 1, 1, 1)
    cosine = (points * b0).sum(0) / distance.clamp_min(1e-6)
    return strength / 3 * (10.0 / distance) ** 3 * (3 * cosine**2 - 1), distance


def test_ball_of_air_in_water_makes_a_dipole_field(ball_of_air):
    made, record, scan = ball_of_air
    expected, distance = ball_field(made, scan, 9.4)
    # the box of water, seen from air, has a field of its own: that of the ball is what is left
    without = BallSimulator(made.protocol, neck=0.0, padding=2.0)
    object.__setattr__(without, "ball", Ball(10.0, "cerebrospinal fluid"))
    empty = without.render(record)
    found = scan.total_field - empty.total_field
    outside = distance > 13.0
    # both were shimmed: a harmonic polynomial apart
    grid = made.protocol.grid
    rest = found - expected
    rest = rest - shim_field(fit_shim(rest, outside, grid), grid)
    peak = 2 / 3 * 9.4
    assert float(rest[outside].square().mean().sqrt()) < 0.004 * peak


def test_fitted_field_is_the_truth_on_a_smooth_ball():
    # a weak ball: no dephasing, and a signal that is the same everywhere
    protocol = replace(PROTOCOL, shape=(40, 42, 44), voxel_size=(1.5, 1.4, 1.6), snr=None)
    made = BallSimulator(protocol, neck=0.0)
    object.__setattr__(made, "ball", Ball(10.0, "white matter"))
    record = quiet(made.draw(1, "test", 0), **{"white matter": 0.2})
    scan = made.render(record)
    everywhere = torch.ones_like(scan.mask)
    fitted = fit_field(scan.as_scan(), scan.unwrapped_phase, everywhere).field
    _, distance = ball_field(made, scan, 0.2)
    # away from the ball's edge and from the ends of the grid, where the spectrum's cut rings
    inner = torch.zeros_like(scan.mask)
    inner[5:-5, 5:-5, 5:-5] = True
    smooth = inner & ((distance - 10.0).abs() > 3.0)
    error = (fitted - scan.total_field)[smooth]
    assert float(error.square().mean().sqrt()) < 0.01 * 0.2 * 2 / 3
    # the local field has the same source, and a constant and the shim apart
    found = scan.local_field[smooth] - scan.total_field[smooth]
    assert float(found.std()) < 0.1


def test_signal_to_noise_is_that_asked_for(scan, clean):
    bright = clean.magnitude[0][clean.mask].quantile(0.99)
    assert float(bright) / scan.signal_noise == pytest.approx(PROTOCOL.snr, rel=1e-3)
    signals = [torch.polar(each.magnitude, each.phase) for each in (scan, clean)]
    for echo in signals[0] - signals[1]:
        assert float(echo.real.std()) == pytest.approx(scan.signal_noise, rel=0.02)
        assert float(echo.imag.std()) == pytest.approx(scan.signal_noise, rel=0.02)


def test_stated_noise_of_the_field_is_that_of_a_fit(scan, clean):
    inside = eroded(scan.mask)
    unwrapped = clean.unwrapped_phase + wrap(scan.phase - clean.unwrapped_phase)
    exact = fit_field(clean.as_scan(), clean.unwrapped_phase, inside).field
    noisy = fit_field(scan.as_scan(), unwrapped, inside).field
    ratio = ((noisy - exact) / scan.noise)[inside]
    assert float(ratio.std()) == pytest.approx(1.0, abs=0.1)


def test_phase_wraps_to_the_model(clean):
    inside = eroded(clean.mask)
    for echo, time in enumerate(PROTOCOL.echo_times):
        assert float(wrap(clean.unwrapped_phase[echo] - clean.phase[echo]).abs().max()) < 1e-3
        model = clean.phase_offset + radians_per_ppm(time, PROTOCOL.b0) * clean.total_field
        error = (clean.unwrapped_phase[echo] - model)[inside]
        assert float(error.abs().median()) < 0.1
        assert float(error.mean()) == pytest.approx(0.0, abs=0.05)


def test_total_field_is_shimmed(clean):
    inside = clean.total_field[clean.mask]
    assert float(inside.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(inside.abs().max()) > 0.5


def test_local_field_is_that_of_the_brain(clean):
    made = local_fields(clean.chi[None], clean.mask[None], [clean.geometry])[0]
    dipole = Dipole(clean.chi.shape, clean.geometry, "sampled", 2.0)
    sampled = dipole.forward(clean.chi * clean.mask)
    # at the surface too, where bone or air in a voxel would make another field
    for inside in (clean.mask, eroded(clean.mask), clean.mask & ~eroded(clean.mask)):
        spread = float(clean.local_field[inside].std())
        for each in (made, sampled):
            rest = (clean.local_field - each)[inside]
            assert float(rest.std()) < 0.15 * spread


def test_lesions_are_where_they_were_asked_for(scan, record):
    bleed, stone = record["lesions"]
    assert (bleed["kind"], stone["kind"]) == ("haemorrhage", "calcification")
    assert float(scan.chi[scan.mask].max()) > 0.6
    assert float(scan.chi[eroded(scan.mask)].min()) < -0.6
    grid = PROTOCOL.grid.points()
    placement = record["anatomy"]["placement"]
    rotation = torch.tensor(placement["rotation"])
    for lesion in (bleed, stone):
        place = rotation.T @ torch.tensor(lesion["centre"])
        place = place + torch.tensor(placement["centre"])
        distance = (grid - place.reshape(3, 1, 1, 1)).square().sum(0)
        nearest = scan.chi.flatten()[distance.argmin()]
        assert float(nearest) * lesion["chi"] > 0


def test_lesions_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="not positive"):
        Lesion(1.0, 0.0)
    with pytest.raises(UsageError, match="not known"):
        Lesion(1.0, 3.0, "cheese")
    with pytest.raises(UsageError, match="no room"):
        HeadSimulator(PROTOCOL, lesions=[Lesion(1.0, 3.0, "bone")]).draw(1, "test", 0)


def test_record_is_plain_and_makes_the_same_head(simulator, record, scan):
    assert simulator.draw(1, "test", 0) == record
    again = simulator.render(json.loads(json.dumps(record)))
    assert torch.equal(again.phase, scan.phase)
    assert torch.equal(again.chi, scan.chi)
    assert simulator.draw(2, "test", 0) != record


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (8, 8)},
        {"echo_times": ()},
        {"echo_times": (0.01, 0.01)},
        {"repetition_time": 0.001},
        {"flip_angle": 0.0},
        {"b0": -3.0},
        {"snr": 0.0},
    ],
)
def test_protocols_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=r"shape|echo|repetition|flip|snr"):
        replace(PROTOCOL, **change)


@pytest.mark.parametrize("change", [{"factor": 0}, {"padding": 0.5}, {"neck": -1.0}])
def test_simulators_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="at least"):
        HeadSimulator(PROTOCOL, **change)


def test_protocol_is_a_grid():
    assert isinstance(PROTOCOL, Protocol)
    assert PROTOCOL.grid.shape == (44, 60, 48)
    assert PROTOCOL.geometry.b0_dir == pytest.approx((0, 0.19996, 0.97980), abs=1e-4)
