"""Scans outside of what weights were trained for are told of, those inside and on the edge not."""

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.inversion.trained_range import (
    in_plane_ratio,
    slice_ratios,
    training_range_flags,
    typical_noise,
)
from qsmnet.volumes import LocalField
from qsmnet.weights.store import load_weights, released_names

AXIAL = (0, 0, 1)
SHAPE = (4, 5, 6)


def flags(trained, voxel_size=(1, 1, 1), b0_dir=AXIAL, noise=(0.002,), takes_noise=True):
    geometry = Geometry(voxel_size, b0_dir)
    return training_range_flags({"trained_for": trained}, geometry, noise, takes_noise)


@pytest.mark.parametrize(
    ("voxel_size", "outside"),
    [
        ((0.5, 1, 2), False),  # both edges of the range
        ((2, 2, 2), False),
        ((0.499, 1, 1), False),  # as a rounded header has it
        ((0.45, 1, 1), True),
        ((1, 1, 2.1), True),
    ],
)
def test_voxel_size(voxel_size, outside):
    found = flags({"voxel_size_mm": [0.5, 2.0]}, voxel_size)
    assert ["outside the 0.5 to 2.0 mm" in each for each in found] == [True] * outside


@pytest.mark.parametrize(
    ("voxel_size", "told"),
    [
        ((1, 1, 3), []),
        ((0.8, 0.8, 0.8), []),
        ((1, 1, 0.9), []),
        ((1, 1, 3.1), ["3.1 times"]),
        ((1, 1.25, 3.5), ["3.5 times"]),
        ((2, 2, 1), ["0.5 times"]),
        # thick along another axis than slices were in training
        ((3, 1, 1), ["0.333 times"]),
    ],
)
def test_slice_thickness(voxel_size, told):
    found = flags({"slice_ratio": [0.9, 3.0]}, voxel_size)
    assert len(found) == len(told)
    for flag, number in zip(found, told, strict=True):
        assert flag.startswith(f"slices are {number} as thick")
        assert flag.endswith("trained for 0.9 to 3 times")


@pytest.mark.parametrize(
    ("voxel_size", "outside"),
    [((1, 1, 5), False), ((1, 1.2, 1), False), ((1.2, 1, 1), False), ((1, 1.3, 1), True)],
)
def test_stretch_in_plane(voxel_size, outside):
    found = flags({"in_plane_ratio": 1.2}, voxel_size)
    assert len(found) == outside
    assert all("1.3 times as long as wide in plane; trained up to 1.2" in each for each in found)


def test_ratios_of_a_voxel():
    assert slice_ratios((2, 1, 4)) == (2, 4)
    assert in_plane_ratio((2, 1, 4)) == in_plane_ratio((1, 2, 0.1)) == 2


@pytest.mark.parametrize(
    ("b0_dir", "outside"),
    [
        (AXIAL, False),
        ((0, 0, -1), False),
        ((0, 1, 1), False),  # exactly on the edge
        ((0, 1.01, 1), False),
        ((0, 1.1, 1), True),
        ((1, 0, 0), True),
    ],
)
def test_tilt(b0_dir, outside):
    found = flags({"tilt_degrees": 45.0}, b0_dir=b0_dir)
    assert len(found) == outside
    assert all("degrees from the third axis; trained up to 45" in each for each in found)


@pytest.mark.parametrize(
    ("trained", "noise", "told"),
    [
        ([0.0, 0.03], [0.03], []),
        ([0.0, 0.03], [1e-6], []),
        ([0.0, 0.03], [0.0], []),  # training had fields without noise
        ([0.0, 0.03], [0.04], ["0.04 ppm is outside the 0 to 0.03 ppm"]),
        ([0.001, 0.01], [0.001, 0.01], []),
        ([0.001, 0.01], [0.0005, 0.02], ["0.0005 ppm", "0.02 ppm"]),
        ([0.001, 0.01], [0.0], ["noise is unknown; trained with 0.001 to 0.01 ppm"]),
        ([0.001, 0.01], [0.002, 0.0], ["noise is unknown"]),
        # trained on fields without noise alone
        ([0.0, 0.0], [0.0], []),
        ([0.0, 0.0], [1e-4], ["0.0001 ppm is outside the 0 to 0 ppm"]),
    ],
)
def test_noise(trained, noise, told):
    found = flags({"noise_ppm": trained}, noise=noise)
    assert len(found) == len(told)
    assert all(part in flag for part, flag in zip(told, found, strict=True))


def test_noise_that_a_network_does_not_look_at_may_be_unknown_but_not_outside():
    trained = {"noise_ppm": [0.001, 0.01]}
    assert flags(trained, noise=[0.0], takes_noise=False) == ()
    assert len(flags(trained, noise=[0.02], takes_noise=False)) == 1


def test_what_is_not_stated_is_not_claimed():
    wild = {"voxel_size": (0.3, 5, 9), "b0_dir": (1, 0, 0), "noise": [0.0, 5.0]}
    assert flags({}, **wild) == ()
    geometry = Geometry(wild["voxel_size"], wild["b0_dir"])
    assert training_range_flags({}, geometry, wild["noise"]) == ()


def test_every_claim_is_told_apart():
    trained = {"voxel_size_mm": [1.0, 1.0], "slice_ratio": [1.0, 1.0], "in_plane_ratio": 1.0}
    trained |= {"tilt_degrees": 10.0, "noise_ppm": [0.0, 0.01]}
    assert flags(trained) == ()
    # one too large, two shapes of slices, one in plane, one tilt and one noise
    assert len(flags(trained, (1, 2, 3), (0, 1, 1), [0.1])) == 6


@pytest.mark.parametrize("name", released_names())
def test_released_cards_say_nothing_of_an_ordinary_scan(name):
    _, card = load_weights(name)
    ordinary = Geometry((1, 1, 1), (0, 0.1, 1))
    assert training_range_flags(card, ordinary, [0.005]) == ()
    assert training_range_flags(card, ordinary, [0.0]) == ()
    assert len(training_range_flags(card, ordinary, [0.05])) == 1


def local_field(noise, batch=()):
    mask = torch.zeros(*batch, *SHAPE, dtype=torch.bool)
    mask[..., 1:3, 1:4, 1:5] = True
    return LocalField(torch.zeros(*batch, *SHAPE), mask, Geometry((1, 1, 1), AXIAL), noise=noise)


@pytest.mark.parametrize(("noise", "expected"), [(None, 0.0), (0.0, 0.0), (0.004, 0.004)])
def test_typical_noise_of_a_number(noise, expected):
    assert typical_noise(local_field(noise)) == [expected]
    assert typical_noise(local_field(noise, (2, 3))) == [expected] * 6


def test_typical_noise_of_a_map_is_its_median_in_the_mask():
    noise = torch.full(SHAPE, 0.7)
    noise[1:3, 1:4, 1:5] = torch.linspace(1, 24, 24).reshape(2, 3, 4)
    assert typical_noise(local_field(noise)) == [12]
    # what is unknown there does not count
    noise[1, 1:4, 1:5] = torch.tensor([0.0, float("nan"), float("inf")])[:, None]
    assert typical_noise(local_field(noise)) == [18]
    assert typical_noise(local_field(torch.zeros(SHAPE))) == [0.0]


def test_typical_noise_of_each_volume():
    noise = torch.tensor([0.1, 0.0, 0.3]).reshape(3, 1, 1, 1).expand(3, *SHAPE)
    assert typical_noise(local_field(noise, (3,))) == pytest.approx([0.1, 0.0, 0.3])
