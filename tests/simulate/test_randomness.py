"""Streams of random numbers and smooth noise."""

import numpy as np
import pytest
import torch

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.randomness import (
    item_generator,
    lattice_noise,
    log_uniform,
    random_rotation,
    uniform,
    white_noise,
)


def test_streams_depend_on_seed_split_and_item_alone():
    def first(*key):
        return item_generator(*key).random(3).tolist()

    assert first(1, "train", 0) == first(1, "train", 0)
    others = [first(*key) for key in ((2, "train", 0), (1, "test", 0), (1, "train", 1))]
    assert first(1, "train", 0) not in others
    assert len({tuple(o) for o in others}) == 3


def test_white_noise_is_standard_normal_and_seeded():
    noise = white_noise(5, (40, 40, 40))
    assert torch.equal(noise, white_noise(5, (40, 40, 40)))
    assert not torch.equal(noise, white_noise(6, (40, 40, 40)))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_numbers_stay_in_their_range_and_are_json():
    rng = np.random.default_rng(0)
    drawn = [log_uniform(rng, 1e-3, 10.0) for _ in range(500)]
    assert all(type(v) is float and 1e-3 <= v <= 10 for v in drawn)
    # half of them lie below the geometric mean, 0.1
    assert sum(v < 0.1 for v in drawn) == pytest.approx(250, abs=50)
    assert type(uniform(rng, (2.0, 3.0))) is float


@pytest.mark.parametrize("largest", [20.0, 180.0])
def test_rotations_are_rotations_of_bounded_angle(largest):
    rng = np.random.default_rng(1)
    for _ in range(50):
        matrix = np.array(random_rotation(rng, largest))
        assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
        cosine = (np.trace(matrix) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= largest + 1e-6


def test_smooth_noise_is_one_function_of_space():
    # every other voxel of the fine grid is a voxel of the coarse one
    fine = Grid((33, 33, 33), (1.0, 1.0, 1.0))
    coarse = Grid((17, 17, 17), (2.0, 2.0, 2.0))
    dense = lattice_noise(3, 6.0, fine.points(), extent=40.0)
    sparse = lattice_noise(3, 6.0, coarse.points(), extent=40.0)
    assert torch.allclose(dense[::2, ::2, ::2], sparse, atol=1e-4)


def test_smooth_noise_is_smooth_of_about_unit_variance():
    points = Grid((48, 48, 48), (2.0, 2.0, 2.0)).points()
    wide, narrow = (lattice_noise(4, s, points, extent=48.0) for s in (16.0, 4.0))
    for noise in (wide, narrow):
        assert abs(float(noise.mean())) < 0.5
        # linear interpolation lowers the variance between lattice points
        assert 0.4 < float(noise.std()) < 1.2
    assert float(wide.diff(dim=0).abs().mean()) < 0.5 * float(narrow.diff(dim=0).abs().mean())
