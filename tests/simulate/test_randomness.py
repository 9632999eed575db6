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
    small_rotation,
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


def rotations(draw, n, seed=1):
    rng = np.random.default_rng(seed)
    return np.array([draw(rng) for _ in range(n)])


def angles(matrices):
    """In rad, of each rotation."""
    cosines = (np.trace(matrices, axis1=1, axis2=2) - 1) / 2
    return np.arccos(np.clip(cosines, -1, 1))


@pytest.mark.parametrize("draw", [random_rotation, lambda rng: small_rotation(rng, 20.0)])
def test_rotations_are_rotations(draw):
    for matrix in rotations(draw, 50):
        assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_small_rotations_are_of_bounded_angle():
    found = np.degrees(angles(rotations(lambda rng: small_rotation(rng, 20.0), 200)))
    assert 15 < found.max() <= 20 + 1e-6


def test_any_rotation_is_as_likely_as_any_other():
    n = 4000
    matrices = rotations(random_rotation, n)
    # the image of each axis is uniform on the sphere: x^2 has mean 1/3 and variance 4/45, x y has
    # mean 0 and variance 1/15, x has mean 0 and variance 1/3
    moments = np.einsum("nia,nja->aij", matrices, matrices) / n
    for image in moments:
        assert np.diag(image) == pytest.approx(1 / 3, abs=4 * np.sqrt(4 / 45 / n))
        assert image[np.triu_indices(3, 1)] == pytest.approx(0, abs=4 * np.sqrt(1 / 15 / n))
    assert matrices.mean(0) == pytest.approx(np.zeros((3, 3)), abs=4 * np.sqrt(1 / 3 / n))
    # the angle has density (1 - cos t) / pi, so that cos t has mean -1/2 and variance 1/4
    assert np.cos(angles(matrices)).mean() == pytest.approx(-0.5, abs=4 * np.sqrt(0.25 / n))


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
