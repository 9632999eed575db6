"""The line of a run's progress."""

from types import SimpleNamespace

import pytest

from qsmnet.training.progress import StepsBar


@pytest.mark.parametrize(("epoch", "last"), [(0, 200), (3, 800), (4, 900)])
def test_line_tells_steps(epoch, last):
    bar = StepsBar()
    bar._trainer = SimpleNamespace(num_training_batches=200, max_steps=900)
    assert bar._get_train_description(epoch) == f"to step {last} of 900"
