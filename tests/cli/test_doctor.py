"""What ``qsmnet doctor`` says, and its exit code when weights are damaged."""

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
    assert "--fast" in capsys.readouterr().err


def test_the_released_weights_are_whole():
    for name, whole in doctor.verify_released():
        assert whole, name
