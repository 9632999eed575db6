"""Scans of procedural heads that every stage is held to: a small one, and one at 1 mm (slow)."""

from dataclasses import replace

import pytest

from qsmnet.cli.compose import compose
from qsmnet.simulate.head.scan import HeadScan

_LESIONS = "[{chi: 1.0, radius: 5.0},{chi: -1.5, radius: 5.0}]"


@pytest.fixture(scope="session")
def small_head() -> HeadScan:
    """96^3 voxels of 2 mm, 3 T, B0 tilted, four echoes, a bleed and a calcification."""
    simulator = compose("simulator", "head", [f"lesions={_LESIONS}"])
    tilted = replace(simulator.protocol, shape=(96, 96, 96), b0_dir=(0.1, 0.2, 0.97))
    return replace(simulator, protocol=tilted).scene(7, 0)


@pytest.fixture(scope="session")
def full_head() -> HeadScan:
    """176 x 240 x 192 voxels of 1 mm, 3 T, five echoes."""
    simulator = compose("simulator", "head", [f"lesions={_LESIONS}"])
    return replace(simulator, protocol=compose("protocol", "1mm_3T_axial")).scene(7, 0)
