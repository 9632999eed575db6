"""What ``qsmnet doctor`` says, and its exit code when weights are damaged."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from qsmnet import cli
from qsmnet.cli import doctor
from qsmnet.errors import WeightsError


@pytest.fixture
def released(monkeypatch):
    """Pretend that these are the released weights and their state."""

    def use(*results):
        monkeypatch.setattr(doctor, "verify_released", lambda: list(results))

    return use


def test_versions_machine_and_weights(released, capsys):
    released(("kqsm", True), ("unet", True))
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    labels = [line.split()[0] for line in lines]
    for label in ("qsmnet", "python", "torch", "lightning", "hydra-core", "numpy", "nibabel"):
        assert label in labels
    for label in ("cores", "memory", "disk", "device"):
        assert label in labels
    assert f"torch         {torch.__version__}" in lines
    assert "weights       kqsm: verified" in lines
    assert "weights       unet: verified" in lines


def test_damaged_weights_are_named_and_set_the_exit_code(released, capsys):
    released(("kqsm", True), ("unet", False))
    assert cli.main(["doctor"]) == WeightsError.exit_code == 6
    text = capsys.readouterr().out
    assert "kqsm: verified" in text
    assert "unet: DAMAGED" in text


def test_a_missing_manifest_is_one_line(monkeypatch, capsys):
    def fail():
        raise WeightsError("manifest.json", "is missing", "install qsmnet again")

    monkeypatch.setattr(doctor, "verify_released", fail)
    assert cli.main(["doctor"]) == 6
    captured = capsys.readouterr()
    assert "torch" in captured.out
    assert "manifest.json" in captured.err


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, "cuda: Test GPU"), (False, True, "mps"), (False, False, "cpu")],
)
def test_device(released, monkeypatch, capsys, cuda, mps, expected):
    released()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"device        {expected}" in text.splitlines()
    assert "none released" in text


def test_help_has_an_example(capsys):
    assert cli.main(["doctor", "--help"]) == 0
    assert "example: qsmnet doctor" in capsys.readouterr().out


def test_unknown_option(capsys):
    assert cli.main(["doctor", "--fast"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--fast" in line


def test_interrupted_while_modules_are_imported(tmp_path):
    # a module of the verb that takes long, and turns the interruption into something else
    (tmp_path / "psutil.py").write_text(
        "import time\ntry:\n    print('importing', flush=True)\n    time.sleep(60)\n"
        "except BaseException:\n    raise ImportError('odd')\n"
    )
    command = [sys.executable, "-m", "qsmnet.cli", "doctor"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "qsmnet: error: interrupted\n"


def test_the_released_weights_are_whole():
    for name, whole in doctor.verify_released():
        assert whole, name
