"""A small head, drawn once, for all tests of heads."""

from dataclasses import replace

import pytest
from small_head import LESIONS, PROTOCOL

from qsmnet.simulate.head.simulator import HeadSimulator


@pytest.fixture(scope="session")
def simulator():
    return HeadSimulator(PROTOCOL, lesions=LESIONS)


@pytest.fixture(scope="session")
def record(simulator):
    return simulator.draw(1, "test", 0)


@pytest.fixture(scope="session")
def scan(simulator, record):
    return simulator.render(record)


@pytest.fixture(scope="session")
def clean(simulator, record):
    """The same head without noise."""
    return replace(simulator, protocol=replace(PROTOCOL, snr=None)).render(record)
