"""The spanning tree against a plain one, and unwrapping that has no wrong turn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmnet.geometry import Geometry
from qsmnet.phase.scale import wrap
from qsmnet.phase.spanning_tree import Edges, unwrap_along_tree
from qsmnet.phase.unwrap_romeo import RomeoUnwrap, edge_costs
from qsmnet.volumes import Scan

GEOMETRY = Geometry((0.8, 1.0, 1.7), (0.0, 0.6, 0.8))
SHAPE = (19, 22, 17)
TURN = 2 * math.pi


def _scan(phase: torch.Tensor, magnitude: torch.Tensor | None = None) -> Scan:
    size = torch.ones_like(phase) if magnitude is None else magnitude
    times = tuple(0.005 * (echo + 1) for echo in range(len(phase)))
    return Scan(phase, size, times, 3.0, GEOMETRY)


def _smooth(steepness: float = 1.0) -> torch.Tensor:
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return steepness * (8 * x * y - 5 * z + 6 * x**2 - 7 * y * z + 4)


def _ball() -> torch.Tensor:
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return x**2 + y**2 + z**2 < 0.9


def _kruskal(phase: np.ndarray, edges: Edges) -> np.ndarray:
    """The textbook's way: one edge after the other, groups relabelled at each join."""
    unwrapped, group = phase.astype(np.float64), np.arange(len(phase))
    for edge in np.lexsort((np.arange(len(edges.cost)), edges.cost)):
        low, high = edges.first[edge], edges.second[edge]
        if group[low] == group[high]:
            continue
        moved = group == group[high]
        unwrapped[moved] += TURN * np.rint((unwrapped[low] - unwrapped[high]) / TURN)
        group[moved] = group[low]
    return unwrapped


def _turns(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    turns = (one - other) / TURN
    return np.rint(turns - turns[0])


@pytest.mark.parametrize("safe", [0, 40, 100, 255])
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_it_is_kruskals_tree_whatever_is_taken_together(noise: float, safe: int) -> None:
    generator = torch.Generator().manual_seed(1)
    phase = wrap(_smooth() + noise * torch.randn(SHAPE, generator=generator))[:9, :10, :8]
    mask = torch.ones(phase.shape, dtype=torch.bool)
    edges = edge_costs(_scan(phase[None]), mask, 0)
    values = phase[mask].numpy()
    found = unwrap_along_tree(values, edges, safe)
    assert np.array_equal(_turns(found, values), _turns(_kruskal(values, edges), values))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), steepness=st.floats(-1.2, 1.2))
def test_smooth_fields_have_no_wrong_turn(seed: int, steepness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = _smooth(steepness) + 0.2 * torch.randn(SHAPE, generator=generator).clamp(-2, 2)
    mask = _ball()
    turns = ((RomeoUnwrap()(_scan(wrap(truth)[None]), mask)[0] - truth) / TURN)[mask]
    assert float((turns - turns[0]).abs().max()) < 1e-4


def test_it_unwraps_what_was_wrapped_exactly_and_nothing_outside() -> None:
    generator = torch.Generator().manual_seed(2)
    wrapped = (torch.rand(2, *SHAPE, generator=generator) * 2 - 1) * math.pi
    mask = _ball()
    unwrapped = RomeoUnwrap()(_scan(wrapped), mask)
    turns = (unwrapped - wrapped)[:, mask] / TURN
    assert float((turns - turns.round()).abs().max()) < 1e-5
    assert float(unwrapped[:, ~mask].abs().max()) == 0
    assert float(turns.abs().max()) >= 1


def test_the_magnitude_guides_it_around_a_vessel() -> None:
    # a dark plate of random phase, open at one side: the way around it is longer, and right
    truth = _smooth(1.2)
    generator = torch.Generator().manual_seed(3)
    wrapped, magnitude = wrap(truth), torch.ones(SHAPE)
    wrapped[8:10, 3:] = (torch.rand(2, 19, 17, generator=generator) * 2 - 1) * math.pi
    magnitude[8:10, 3:] = 0.05
    plate = magnitude < 1
    mask = torch.ones(SHAPE, dtype=torch.bool)
    found = RomeoUnwrap()(_scan(wrapped[None], magnitude[None]), mask)[0]
    turns = ((found - truth) / TURN).round()[~plate]
    assert float((turns - turns[0]).abs().max()) == 0


def test_parts_that_do_not_touch_are_each_right() -> None:
    truth, mask = _smooth(), _ball()
    mask[9:11] = False
    turns = (RomeoUnwrap()(_scan(wrap(truth)[None]), mask)[0] - truth) / TURN
    for part in (slice(0, 9), slice(11, None)):
        inside = turns[part][mask[part]]
        assert float((inside - inside[0]).abs().max()) < 1e-4


def test_it_repeats_bit_for_bit_and_takes_the_first_echoes() -> None:
    generator = torch.Generator().manual_seed(4)
    wrapped = wrap(_smooth() + 2 * torch.randn(3, *SHAPE, generator=generator))
    both, again = (RomeoUnwrap()(_scan(wrapped), _ball()) for _ in range(2))
    assert torch.equal(both, again)
    assert torch.equal(RomeoUnwrap()(_scan(wrapped), _ball(), count=1), both[:1])


def test_empty_and_tiny_masks() -> None:
    scan, mask = _scan(wrap(_smooth())[None]), torch.zeros(SHAPE, dtype=torch.bool)
    assert float(RomeoUnwrap()(scan, mask).abs().max()) == 0
    mask[3, 3, 3] = True
    assert float(RomeoUnwrap()(scan, mask)[0, 3, 3, 3]) == float(scan.wrapped_phase[0, 3, 3, 3])
