"""Voxel sizes, B0 directions, noise and field."""

import math

import numpy as np
import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.simulate.acquisition import (
    STRONGEST_NOISE,
    Acquisition,
    add_noise,
    local_fields,
    noise_map,
    voxel_size_list,
)
from qsmnet.simulate.grid import Grid

GRID = Grid((40, 44, 36), (1.0, 1.1, 0.9))

SHARES = ("isotropic", "axial", "noise_free", "strongly_noisy", "unmasked", "voids")


def drawn(acquisition, n=800):
    return [acquisition.draw(np.random.default_rng(i)) for i in range(n)]


def share(n, probability):
    """Count of ``n`` within four standard deviations."""
    return pytest.approx(n * probability, abs=4 * math.sqrt(n * probability * (1 - probability)))


def test_voxel_sizes_come_from_a_seeded_list():
    sizes = voxel_size_list(7, 64, 0.4)
    assert sizes == voxel_size_list(7, 64, 0.4)
    assert sizes != voxel_size_list(8, 64, 0.4)
    assert len(sizes) == 64
    assert sum(size == (1.0, 1.0, 1.0) for size in sizes) >= 26
    acquisition = Acquisition()
    used = {acquisition.draw_voxel_size(np.random.default_rng(i), 7) for i in range(300)}
    assert used <= set(sizes)
    assert len(used) > 20


def test_voxel_sizes_are_those_of_scans():
    for x, y, z in voxel_size_list(1, 300, 0.0):
        assert 0.4 <= min(x, y) <= max(x, y) <= 1.9
        assert 0.5 <= z <= 3
        # 0.85 to 1.15 before rounding
        assert 0.75 < y / x < 1.25
        # multiples of 0.05 mm, so that the list stays short and tidy
        assert all(20 * v == pytest.approx(round(20 * v)) for v in (x, y, z))


def test_one_voxel_size_for_all():
    fixed = Acquisition(voxel_size=(0.7, 0.7, 1.4))
    assert fixed.draw_voxel_size(np.random.default_rng(0), 1) == (0.7, 0.7, 1.4)


@pytest.mark.parametrize(
    "settings",
    [
        {"voxel_size": (0.0, 1.0, 1.0)},
        {"voxel_size": (1.0, 1.0)},
        {"voxel_size": (-1.0, 1.0, 1.0)},
        {"voxel_size": (1.0, 1.0, 20.0)},
        {"b0_dir": (0.0, 0.0, 0.0)},
        {"b0_dir": (0.0, 0.0, math.inf)},
        {"noise": (-1.0, 0.1)},
        {"noise": (0.1, 0.001)},
        {"noise": (0.0, 0.1)},
        {"noise": (0.1, 20.0)},
        {"noise": (0.1, 0.1, 0.1)},
        {"tilt": -5.0},
        {"tilt": 181.0},
        {"tilt": math.nan},
        {"padding": 0.5},
        {"voxel_sizes": 0},
        *({name: value} for name in SHARES for value in (-0.1, 1.1)),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Acquisition(**settings)


@pytest.mark.parametrize("voxel_size", [None, (0.7, 0.8, 1.4)])
def test_sizes_are_all_that_are_drawn(voxel_size):
    acquisition = Acquisition(voxel_size=voxel_size, voxel_sizes=5)
    used = {acquisition.draw_voxel_size(np.random.default_rng(i), 7) for i in range(100)}
    assert used == set(acquisition.sizes(7))


def test_strong_noise_is_up_to_the_stated_factor():
    levels = [r["noise"]["level"] for r in drawn(Acquisition(noise_free=0.0, strongly_noisy=1.0))]
    assert 0.01 <= min(levels) < 0.0105
    assert 0.97 * STRONGEST_NOISE * 0.01 < max(levels) <= STRONGEST_NOISE * 0.01


def test_directions_are_axial_or_within_the_cone():
    tilts = []
    for record in drawn(Acquisition(tilt=20.0, axial=0.3)):
        assert math.hypot(*record["b0_dir"]) == pytest.approx(1)
        tilts.append(math.degrees(math.acos(min(1, record["b0_dir"][2]))))
    assert max(tilts) <= 20 + 1e-6
    assert sum(tilt < 1e-6 for tilt in tilts) == share(800, 0.3)
    assert sum(tilt > 10 for tilt in tilts) == share(800, 0.35)


def test_any_direction_points_everywhere():
    directions = np.array([r["b0_dir"] for r in drawn(Acquisition(axial=0.0), 1500)])
    assert np.linalg.norm(directions, axis=1) == pytest.approx(1)
    # the inversion is even in B0, so that the second moments are what counts; those of a uniform
    # direction are 1/3, of a variance of 4/45
    moments = np.diag(directions.T @ directions) / len(directions)
    assert moments == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / 1500))


def test_fixed_direction():
    record = Acquisition(b0_dir=(0.0, 0.5, 0.866)).draw(np.random.default_rng(0))
    assert record["b0_dir"] == [0.0, 0.5, 0.866]


def test_shares_of_noise_free_strongly_noisy_and_unmasked():
    acquisition = Acquisition(noise_free=0.2, strongly_noisy=0.15, unmasked=0.1)
    records = drawn(acquisition)
    levels = np.array([r["noise"]["level"] for r in records])
    assert (levels == 0).sum() == share(800, 0.2)
    assert (levels > 1e-2).sum() == share(800, 0.15)
    assert levels.max() <= 3e-2
    assert levels[levels > 0].min() >= 1e-4
    assert sum(r["unmasked"] for r in records) == share(800, 0.1)


def test_constant_noise_map():
    record = {"level": 0.003, "variation": 0.0, "seed": 1}
    assert noise_map(record, GRID).unique().tolist() == pytest.approx([0.003])
    assert not noise_map(record | {"level": 0.0, "variation": 0.3}, GRID).any()


def test_varying_noise_map_is_smooth_about_its_level():
    deviation = noise_map({"level": 0.003, "variation": 0.4, "seed": 1}, GRID)
    assert (deviation > 0).all()
    logarithm = (deviation / 0.003).log()
    assert 0.1 < float(logarithm.std()) < 0.6
    assert abs(float(logarithm.mean())) < 0.4
    # neighbours agree to a few percent
    assert float(logarithm.diff(dim=0).abs().max()) < 0.1


def test_noise_has_the_deviation_of_the_map():
    deviation = noise_map({"level": 0.003, "variation": 0.5, "seed": 4}, GRID)
    noise = add_noise(torch.zeros(GRID.shape), deviation, seed=4)
    for part in deviation.flatten().argsort().chunk(5):
        expected = deviation.flatten()[part].square().mean().sqrt()
        # 12 600 voxels: a relative standard error of 0.6 %
        assert float(noise.flatten()[part].std()) == pytest.approx(float(expected), rel=0.03)
    # white: neighbours are independent
    left, right = noise[:-1].flatten(), noise[1:].flatten()
    assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.02


def void(centre, radius, factor):
    return {"centre": centre, "radius": radius, "factor": factor}


def ball(centre, radius, grid=GRID):
    """Voxels whose centres lie in a ball; ``centre`` is in shares of the field of view."""
    middle = [c * e for c, e in zip(centre, grid.extent, strict=True)]
    return (grid.points() - torch.tensor(middle).reshape(3, 1, 1, 1)).square().sum(0) <= radius**2


@pytest.mark.parametrize("variation", [0.0, 0.4])
def test_noise_is_stronger_in_voids_and_nowhere_else(variation):
    record = {"level": 0.003, "variation": variation, "seed": 1}
    # the second lies half outside of the grid
    weak, strong = ([0.1, -0.2, 0.3], 4.0, 10.0), ([0.4, 0.4, -0.5], 5.0, 60.0)
    gain = noise_map(record, GRID, [void(*weak), void(*strong)]) / noise_map(record, GRID)
    expected = torch.ones(GRID.shape)
    expected[ball(*weak[:2])] = 10.0
    expected[ball(*strong[:2])] = 60.0
    assert sorted(expected.unique().tolist()) == [1, 10, 60]
    assert torch.allclose(gain, expected, rtol=1e-5)


def test_the_stronger_of_two_voids_counts():
    record = {"level": 0.003, "variation": 0.0, "seed": 1}
    both = [void([0.0, 0.0, 0.0], 4.0, 80.0), void([0.02, 0.0, 0.0], 4.0, 20.0)]
    one, other = noise_map(record, GRID, both), noise_map(record, GRID, both[::-1])
    assert torch.equal(one, other)
    assert torch.allclose(one[ball([0.0] * 3, 4.0)], torch.tensor(0.24))


def test_a_void_of_a_noise_free_scan_has_no_noise():
    record = {"level": 0.0, "variation": 0.3, "seed": 1}
    assert not noise_map(record, GRID, [void([0.0] * 3, 5.0, 100.0)]).any()


def test_a_share_of_the_scans_has_voids_of_the_stated_sizes():
    records = [r["voids"] for r in drawn(Acquisition(voids=0.3))]
    counts = [len(voids) for voids in records if voids]
    assert len(counts) == share(800, 0.3)
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    for each in (v for voids in records for v in voids):
        assert 1.5 <= each["radius"] <= 5
        assert 10 <= each["factor"] <= 100
        assert max(map(abs, each["centre"])) <= 0.4
    assert not any(r["voids"] for r in drawn(Acquisition(voids=0.0), 50))


def test_voids_change_nothing_else_of_a_record():
    for with_voids, without in zip(
        drawn(Acquisition(voids=1.0), 20), drawn(Acquisition(voids=0.0), 20), strict=True
    ):
        assert with_voids | {"voids": []} == without


def test_field_is_the_prism_convolution_of_what_is_inside():
    generator = torch.Generator().manual_seed(0)
    chi = torch.randn(2, 12, 14, 10, generator=generator)
    mask = torch.rand(chi.shape, generator=generator) < 0.6
    geometries = [Geometry((1, 1.2, 2), (0, 0, 1)), Geometry((0.8, 0.8, 0.8), (0.3, -0.2, 0.9))]
    fields = local_fields(chi, mask, geometries)
    for i, geometry in enumerate(geometries):
        dipole = Dipole((12, 14, 10), geometry, "prism", padding=2.0)
        assert torch.allclose(fields[i], dipole.forward(chi[i] * mask[i]), atol=1e-6)
