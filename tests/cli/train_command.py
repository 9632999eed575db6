"""What tests of ``qsmnet train`` share: the smallest run, the command, its line of error."""

from qsmnet.cli import main

TINY = [
    "experiment=smoke",
    "simulator=primitives",
    "simulator.shape=[12,12,12]",
    "network.channels=[4,6]",
    "data.phantoms=2",
    "data.validation_phantoms=1",
    "data.batch_size=1",
    "epoch=2",
    "warmup=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
]


def train(*settings):
    return main(["train", *settings])


def one_error(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("qsmnet: error: ")
    assert "\n" not in error
    assert "Traceback" not in error
    return error
