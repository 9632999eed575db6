"""ROMEO's weights: values worked out by hand, and what they say of noise."""

import math

import pytest
import torch

from qsmnet.geometry import Geometry
from qsmnet.phase.quality import edge_weights, quality_map
from qsmnet.phase.scale import wrap
from qsmnet.phase.unwrap_romeo import quantised
from qsmnet.volumes import Scan

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))


def _line(*phases: float, magnitudes: tuple[float, ...] | None = None) -> Scan:
    phase = torch.tensor(phases).reshape(1, -1, 1, 1)
    size = torch.ones_like(phase) if magnitudes is None else torch.tensor(magnitudes)
    return Scan(phase, size.reshape(phase.shape), (0.01,), 3.0, GEOMETRY)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_published_example(axis: int) -> None:
    # the example of ROMEO.jl's tests: costs 30, 7 and 30, without a magnitude that differs
    scan = _line(0.1, 0.2 + 2 * math.pi, 0.3, 0.4)
    phase = scan.wrapped_phase.movedim(1, axis + 1)
    turned = Scan(phase, torch.ones_like(phase), (0.01,), 3.0, GEOMETRY)
    assert quantised(edge_weights(turned, axis)).ravel().tolist() == [30, 7, 30]


def test_magnitude_coherence_is_the_squared_ratio() -> None:
    even = edge_weights(_line(0.1, 0.2, 0.3, 0.4), 0)
    uneven = edge_weights(_line(0.1, 0.2, 0.3, 0.4, magnitudes=(1, 1, 0.5, 1)), 0)
    ratio = (uneven / even).ravel()
    assert torch.allclose(ratio, torch.tensor([1.0, 0.1 + 0.9 / 4, 0.1 + 0.9 / 4]))


def test_gradient_coherence_compares_steps_by_echo_time() -> None:
    first = torch.tensor([0.0, 0.3, 0.6, 1.0]).reshape(-1, 1, 1)
    # the last step is 0.5 rad at TE 2, 0.25 at TE 1, where 0.4 was measured
    second = torch.tensor([0.0, 0.6, 1.2, 1.7]).reshape(-1, 1, 1)
    both = Scan(torch.stack([first, second]), torch.ones(2, 4, 1, 1), (0.01, 0.02), 3.0, GEOMETRY)
    alone = Scan(first[None], torch.ones(1, 4, 1, 1), (0.01,), 3.0, GEOMETRY)
    ratio = (edge_weights(both, 0) / edge_weights(alone, 0)).ravel()
    assert torch.allclose(ratio, torch.tensor([1.0, 1.0, 0.1 + 0.9 * 0.85]))


def test_quality_tells_noise_from_tissue_and_leaves_the_mask_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(24.0).reshape(-1, 1, 1).expand(24, 20, 21)
    phase = torch.stack([wrap(0.4 * x), wrap(0.8 * x)])
    noise = (torch.rand(phase.shape, generator=generator) * 2 - 1) * math.pi
    phase = torch.where(x < 12, phase, noise)
    scan = Scan(phase, torch.ones_like(phase), (0.01, 0.02), 3.0, GEOMETRY)
    quality = quality_map(scan)
    assert float(quality.min()) >= 0
    assert float(quality.max()) <= 1
    inside = quality[2:10, 2:-2, 2:-2]
    assert float(inside.min()) > 0.9
    assert float(quality[14:-2, 2:-2, 2:-2].median()) < 0.3
    # edges beyond the grid count as nothing
    assert float(quality[0, 5, 5]) < 0.9
    mask = x < 6
    assert float(quality_map(scan, mask)[~mask].max()) == 0


def test_not_a_number_spoils_its_neighbours_alone() -> None:
    x = torch.arange(12.0).reshape(-1, 1, 1).expand(12, 12, 12) * 0.1
    phase, magnitude = x[None].clone(), torch.ones(1, 12, 12, 12)
    clean = quality_map(Scan(phase, magnitude, (0.01,), 3.0, GEOMETRY))
    phase[0, 6, 6, 6] = math.nan
    quality = quality_map(Scan(phase, magnitude, (0.01,), 3.0, GEOMETRY))
    assert bool(quality.isfinite().all())
    assert float(quality[6, 6, 6]) == 0
    changed = (quality - clean).abs() > 1e-6
    assert int(changed.sum()) <= 13
    assert bool(changed[6, 6, 5])


def test_a_grid_of_one_voxel_an_axis_works() -> None:
    assert quality_map(_line(0.1, 0.2, 0.3)).shape == (3, 1, 1)
