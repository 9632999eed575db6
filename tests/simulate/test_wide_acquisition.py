"""Voxel sizes and directions of B0 as they occur."""

import math
from collections import Counter

import numpy as np
import pytest

from qsmnet.simulate.wide_acquisition import WideAcquisition


def angles(acquisition, n=1500):
    drawn = [acquisition.draw(np.random.default_rng(i))["b0_dir"] for i in range(n)]
    assert all(math.hypot(*each) == pytest.approx(1) for each in drawn)
    return np.degrees([math.acos(min(1.0, abs(z))) for _, _, z in drawn])


def test_most_scans_are_near_axial_and_some_are_not():
    found = angles(WideAcquisition(axial=0.3))
    assert float((found < 35).mean()) == pytest.approx(0.70, abs=0.05)
    assert float((found < 1e-6).mean()) == pytest.approx(0.15, abs=0.04)
    assert float(found.max()) > 80


def test_directions_fill_the_cone_evenly():
    found = angles(WideAcquisition(axial=0.0, near=1.0))
    assert found.max() <= 35
    # equal areas: half of a cap lies beyond this angle
    middle = math.degrees(math.acos((1 + math.cos(math.radians(35))) / 2))
    assert float((found > middle).mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        ({}, 180),
        ({"near": 1.0}, 35),
        ({"near": 1.0, "tilt": 20.0}, 20),
        ({"axial": 1.0}, 35),
        ({"axial": 1.0, "near": 0.0}, 0),
        ({"tilt": 20.0}, 20),
        ({"b0_dir": (0.0, 0.6, -0.8)}, 36.87),
    ],
)
def test_largest_tilt_is_that_of_what_is_drawn(settings, largest):
    acquisition = WideAcquisition(**settings)
    assert acquisition.largest_tilt == pytest.approx(largest)
    assert angles(acquisition, 300).max() <= largest + 0.01


def test_a_given_direction_stays():
    acquisition = WideAcquisition(b0_dir=(0.0, 0.6, 0.8))
    assert acquisition.draw(np.random.default_rng(0))["b0_dir"] == [0.0, 0.6, 0.8]


def test_voxels_are_of_half_a_millimetre_to_three():
    sizes = np.array(WideAcquisition(voxel_sizes=300, isotropic=0.2).sizes(1))
    assert sizes.min() >= 0.4
    assert sizes.max() == 3
    assert float((sizes[:, 0] > 1.8).mean()) > 0.1
    assert Counter(map(tuple, sizes.tolist()))[1.0, 1.0, 1.0] >= 60
    assert WideAcquisition(voxel_size=(1, 1, 2)).sizes(1) == [(1.0, 1.0, 2.0)]


def test_sizes_of_common_protocols_are_always_there():
    always = [(0.5, 0.5, 2.0), (0.7, 0.7, 1.4)]
    sizes = WideAcquisition(voxel_sizes=8, always=always).sizes(1)
    assert sizes == [*WideAcquisition(voxel_sizes=8).sizes(1), *always]
    assert WideAcquisition(voxel_size=(1, 1, 2), always=always).sizes(1) == [(1.0, 1.0, 2.0)]


@pytest.mark.parametrize("size", [(1.0, 2.0), (0.0, 1.0, 1.0)])
def test_what_is_no_voxel_size_is_refused(size):
    with pytest.raises(ValueError, match=r"voxel.size"):
        WideAcquisition(always=[size])


@pytest.mark.parametrize("change", [{"in_plane": (2, 1)}, {"cone": 0}, {"near": 2}])
def test_ranges_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        WideAcquisition(**change)
