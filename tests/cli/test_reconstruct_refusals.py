"""``qsmnet reconstruct`` with input that looks right: refused in one line, and nothing is left."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsmnet.cli import main
from qsmnet.weights.store import build_network, released_names, save_weights

SHAPE = (16, 14, 12)
Write = Callable[..., Path]
INSIDE = np.zeros(SHAPE, np.uint8)
INSIDE[3:13, 3:11, 3:9] = 1


@pytest.fixture
def local(write_nifti: Write) -> list[str]:
    """Arguments of a local field."""
    field = np.random.default_rng(0).normal(0, 0.02, SHAPE).astype(np.float32)
    files = write_nifti("field.nii.gz", field), write_nifti("mask.nii.gz", INSIDE)
    return ["--local-field", str(files[0]), "--mask", str(files[1]), "--inverter", "tkd"]


@pytest.fixture
def scan(write_nifti: Write) -> Callable[..., list[str]]:
    """Arguments of a scan, whose echoes are multiplied by what is given."""

    def files(phase: tuple[float, ...] = (1, 1, 1), magnitude: object = (1, 1, 1)) -> list[str]:
        rng = np.random.default_rng(1)
        values = rng.uniform(-math.pi, math.pi, (*SHAPE, 3))
        values[0, 0, 0], values[0, 0, 1] = -math.pi, math.pi
        sizes = rng.uniform(1, 2, (*SHAPE, 3)) * np.asarray(magnitude)
        raw = write_nifti("phase.nii.gz", (values * np.asarray(phase)).astype(np.float32))
        size = write_nifti("magnitude.nii.gz", sizes.astype(np.float32))
        mask = write_nifti("mask.nii.gz", INSIDE)
        given = ["--phase", str(raw), "--magnitude", str(size), "--mask", str(mask), "--b0", "3"]
        times = ["--echo-times", "0.005", "0.010", "0.015"]
        stages = ["--background", "vsharp", "--max-radius", "2", "--inverter", "tkd"]
        return [*given, *times, *stages]

    return files


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run, check the code, that there is one line and that nothing was written; give the line."""

    def check(arguments: list[str], code: int) -> str:
        before = sorted(tmp_path.rglob("*"))
        named = any(word.startswith("--out") for word in arguments)
        out = [] if named else ["--out", str(tmp_path / "out")]
        assert main(["reconstruct", *arguments, *out]) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("qsmnet: error: ")
        assert "Fix: " in lines[0]
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return check


def test_echoes_in_mixed_units(scan, refused):
    degrees = 180 / math.pi
    assert "phase.nii.gz: echo 1" in refused(scan(phase=(1, degrees, 1)), 4)


def test_radians_in_a_range_of_degrees(scan, refused):
    line = refused([*scan(), "--phase-range", "-180", "180"], 5)
    assert "phase.nii.gz" in line
    assert "-180 180" in line


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        (["--background", "sharp"], "Fix: use --set-background radius=2, --background vsharp"),
        (["--background", "lbv"], "Fix: use --background vsharp, or leave it out"),
    ],
)
def test_radii_of_a_method_without(scan, refused, options, fix):
    line = refused([*scan(), *options], 2)
    assert "--max-radius: is for vsharp" in line
    assert fix in line


@pytest.mark.parametrize(
    ("factors", "words"),
    [((1, 0, 1), "echo 2 of the magnitude"), (1 - INSIDE[..., None], "echo 1 of the magnitude")],
)
def test_magnitude_without_signal(scan, refused, factors, words):
    line = refused(scan(magnitude=factors), 4)
    assert "magnitude.nii.gz" in line
    assert words in line
    assert "zero everywhere in the mask" in line


def test_magnitude_without_signal_beside_a_field(local, refused, write_nifti):
    zero = write_nifti("zero.nii.gz", np.zeros(SHAPE, np.float32))
    line = refused([*local, "--magnitude", str(zero)], 4)
    assert "zero.nii.gz" in line
    assert "zero everywhere" in line


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--out", ""], 2, ["--out", "is empty"]),
        (["--out="], 2, ["--out", "is empty"]),
        (["--noise", ""], 2, ["--noise", "is empty"]),
        (["--set", ""], 2, ["--set", "is empty"]),
        (["--overwr"], 2, ["--overwr"]),
        (["--set", "threshold.a=1"], 2, ["threshold has no parts"]),
        (["--set", "padding=nan"], 2, ["padding"]),
        (["--set", "padding=0"], 2, ["padding"]),
        (["--inverter", "tikhonov", "--set", "regularisation=inf"], 2, ["regularisation"]),
        (["--inverter", "tv", "--set", "tolerance=nan"], 2, ["tolerance"]),
        (["--threads", "100000"], 2, ["--threads"]),
        (["--threads", "3000000000"], 2, ["--threads"]),
        (["--b0-dir", "1e200", "0", "0"], 2, ["--b0-dir", "no direction"]),
        (["--b0-dir", "nan", "0", "1"], 2, ["--b0-dir", "no direction"]),
        (["--phase-sign", "-1"], 2, ["--phase-sign", "no effect with --local-field"]),
        (["--max-radius", "5"], 2, ["--max-radius", "no effect with --local-field"]),
        (["--unwrap", "laplacian"], 2, ["--unwrap", "no effect"]),
        (["--background", "vsharp"], 2, ["--background", "no effect"]),
        (["--set-mask", "erosion=2"], 2, ["--set-mask", "no effect with the mask file"]),
        (["--config-dir", "absent"], 2, ["--config-dir", "not a folder"]),
        (["--out", "/proc/qsmnet"], 8, ["/proc/qsmnet", "cannot be written"]),
        (["--local-field", f"{'a' * 300}.nii"], 3, ["cannot be reached"]),
        (["--mask", "a" * 300], 2, ["is not known"]),
        (["--out", f"new/{'a' * 300}"], 8, ["too long"]),
        (["--inverter", "unet", "--set", "device=foo"], 2, ["device=foo", "use device=cpu"]),
        (["--inverter", "unet", "--set", "device=meta"], 2, ["device=meta"]),
        (["--inverter", "unet", "--set", "device=cuda:99"], 2, ["device=cuda:99"]),
    ],
)
def test_options(local, refused, options, code, words):
    if "/proc/qsmnet" in options and not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    if "unet" in options and "unet" not in released_names():
        pytest.skip("no released weights")
    line = refused([*local, *options], code)
    assert [word for word in words if word not in line] == []


def test_output_that_is_a_link_to_nothing(local, refused, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert "link to nothing" in refused([*local, "--out", str(tmp_path / "link")], 8)


@pytest.mark.parametrize("option", ["--local-field", "--mask", "--noise", "--field-support"])
def test_complex_volumes(local, refused, write_nifti, option):
    path = write_nifti("complex.nii.gz", np.ones(SHAPE, np.complex64))
    assert "complex.nii.gz: is complex" in refused([*local, option, str(path)], 4)


def test_field_without_orientation_is_one_line(local, refused, write_nifti):
    def forget(image: nib.Nifti1Image) -> None:
        image.set_sform(image.affine, 0)
        image.set_qform(image.affine, 0)

    field = write_nifti("lost.nii.gz", np.ones(SHAPE, np.float32), edit=forget)
    arguments = ["--local-field", str(field), "--mask", "whole", "--inverter", "tkd"]
    assert "--b0-dir" in refused(arguments, 5)


BROKEN = ["1 +", "raise RuntimeError('a\\nb')", "class Other: pass", "import absent_module"]


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_class_of_the_user(local, refused, tmp_path, code, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    line = refused([*local, *_own_inverter(tmp_path, f"broken_{len(code)}", code)], 2)
    assert "own" in line
    assert "repair" in line


def test_a_broken_class_of_the_user_is_not_said_twice(local, tmp_path):
    # in a process of its own: here pytest takes what Hydra logs
    arguments = [*local, *_own_inverter(tmp_path, "broken", "1 +"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "qsmnet.cli", "reconstruct", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "own" in line


def _own_inverter(folder: Path, module: str, code: str) -> list[str]:
    (folder / f"{module}.py").write_text(code)
    (folder / "inverter").mkdir()
    (folder / "inverter" / "own.yaml").write_text(f"_target_: {module}.Own\n")
    return ["--config-dir", str(folder), "--inverter", "own"]


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    """Weights of a small untrained network of another kind than k-QSM."""
    network = {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 4]}
    path = tmp_path / "mine.safetensors"
    save_weights(path, build_network(network, "test").state_dict(), {"network": network})
    return path


@pytest.mark.skipif(not {"kqsm", "unet"} <= set(released_names()), reason="no released weights")
@pytest.mark.parametrize("option", [["--weights", "{}"], ["--set", "weights={}"]])
def test_weights_of_another_network(local, refused, unet, option):
    given = [word.format(unet) for word in option]
    words = ["mine.safetensors", "made for qsmnet.networks.unet.UNet", "choose --inverter unet"]
    line = refused([*local, "--inverter", "kqsm", *given], 6)
    assert [word for word in words if word not in line] == []


def test_files_of_an_earlier_run_do_not_stay(local, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "out" / "mine.nii.gz"
    run = ["reconstruct", *local, "--out", str(out)]
    assert main([*run, "--keep"]) == 0
    mine.write_text("")
    (out / "local_field.nii.gz").write_text("edited")
    assert main([*run, "--overwrite"]) == 0
    left = {path.name for path in out.iterdir()}
    assert left == {"chi.nii.gz", "chi.json", "report.png", "mine.nii.gz", "local_field.nii.gz"}
    listed = json.loads((out / "chi.json").read_text())["outputs"]
    assert {each["file"] for each in listed} == {"chi.nii.gz", "report.png"}


def test_an_input_that_an_earlier_run_made_stays(local, tmp_path):
    out = tmp_path / "out"
    assert main(["reconstruct", *local, "--out", str(out), "--keep"]) == 0
    again = [*local[:2], "--mask", str(out / "mask.nii.gz"), "--inverter", "tkd"]
    assert main(["reconstruct", *again, "--out", str(out), "--overwrite"]) == 0
    assert (out / "mask.nii.gz").exists()
    assert not (out / "local_field.nii.gz").exists()


def test_threads_that_the_machine_has_are_taken(local, tmp_path):
    before = torch.get_num_threads()
    try:
        assert main(["reconstruct", *local, "--out", str(tmp_path / "out"), "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(before)
