"""``qsmnet reconstruct --r2star``: the rate of decay beside the susceptibility."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmnet.cli import main, reconstruct_reference
from qsmnet.r2star.log_linear import LogLinear

SHAPE = (20, 22, 18)
ECHO_TIMES = (0.004, 0.010, 0.016, 0.022)
_GRID = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) // 2
OBJECT = (_GRID**2).sum(0) < 64
RATES = np.linspace(5, 80, math.prod(SHAPE)).reshape(SHAPE)
Run = Callable[..., tuple[int, Path]]


@pytest.fixture
def run(write_nifti: Callable[..., Path], tmp_path: Path) -> Run:
    """Reconstruct a scan that decays at ``RATES``; its number of echoes and options are free."""

    def run(name: str, *options: str, echoes: int = len(ECHO_TIMES)) -> tuple[int, Path]:
        times = np.array(ECHO_TIMES[:echoes])
        magnitude = 100 * np.exp(-times * RATES[..., None]).astype(np.float32)
        phase = np.random.default_rng(0).uniform(-0.1, 0.1, magnitude.shape).astype(np.float32)
        phase[0, 0, 0] = math.pi
        phase[0, 0, 1] = -math.pi
        given = ["--phase", str(write_nifti("p.nii.gz", phase))]
        given += ["--magnitude", str(write_nifti("m.nii.gz", magnitude)), "--b0", "3"]
        given += ["--mask", str(write_nifti("o.nii.gz", OBJECT.astype(np.uint8)))]
        given += ["--echo-times", *map(str, times), "--phase-range", "-3.1416", "3.1416"]
        given += ["--background", "vsharp", "--max-radius", "3"]
        given += ["--inverter", "tkd", "--out", str(tmp_path / name)]
        return main(["reconstruct", *given, *options]), tmp_path / name

    return run


def _volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("method", ["arlo", "log_linear", "nlls"])
def test_rates_are_those_of_the_decay(method: str, run: Run) -> None:
    code, out = run("out", "--r2star", method)
    assert code == 0
    image = nib.load(out / "r2star.nii.gz")
    found = _volume(out / "r2star.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.affine, nib.load(out / "chi.nii.gz").affine)
    # the noise floor that nlls estimates of these images is not zero
    assert np.allclose(found[OBJECT], RATES[OBJECT], rtol=1e-2 if method == "nlls" else 1e-3)
    assert not found[~OBJECT].any()


def test_sidecar_says_unit_method_and_files(run: Run) -> None:
    code, out = run("out", "--r2star", "log_linear")
    assert code == 0
    record = json.loads((out / "r2star.json").read_text())
    assert record["units"] == "1/s"
    assert record["methods"]["r2star"]["name"] == "log_linear"
    assert record["methods"]["r2star"]["most"] == 1000
    assert [each["file"] for each in record["inputs"]] == ["m.nii.gz", "o.nii.gz"]
    assert record["acquisition"]["echo_times_s"] == list(ECHO_TIMES)
    assert record["statistics"]["mean_per_s"] == pytest.approx(RATES[OBJECT].mean(), rel=1e-3)
    chi = json.loads((out / "chi.json").read_text())
    assert {"r2star.nii.gz", "r2star.json"} <= {each["file"] for each in chi["outputs"]}


def test_written_only_if_asked_for_and_without_effect_on_the_map(run: Run) -> None:
    code, out = run("out", "--r2star", "arlo")
    assert code == 0
    chi = _volume(out / "chi.nii.gz")
    code, out = run("out", "--overwrite", "--keep")
    assert code == 0
    assert not list(out.glob("r2star*"))
    assert np.array_equal(_volume(out / "chi.nii.gz"), chi)


@pytest.mark.parametrize(
    ("options", "echoes", "code", "words"),
    [
        (["--r2star", "arlo"], 2, 4, ["2 of them", "R2* needs 3", "another method"]),
        (["--r2star", "nlls"], 1, 4, ["1 of them", "R2* needs 2"]),
        (["--r2star", "arlow"], 4, 2, ["arlow", "arlo"]),
    ],
)
def test_what_cannot_be_fitted_is_one_line(
    options: list[str],
    echoes: int,
    code: int,
    words: list[str],
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, out = run("out", *options, echoes=echoes)
    assert found == code
    assert not out.exists()
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert [word for word in words if word not in line] == []


def test_a_field_has_no_echoes(
    write_nifti: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = np.random.default_rng(0).normal(0, 0.01, SHAPE).astype(np.float32)
    files = ["--local-field", str(write_nifti("f.nii.gz", field)), "--mask", "whole"]
    options = ["--inverter", "tkd", "--r2star", "nlls", "--out", str(tmp_path / "out")]
    assert main(["reconstruct", *files, *options]) == 2
    assert "--r2star: has no effect with --local-field" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["log_linear", "arlo", None])
def test_fluid_is_found_in_the_same_map_whatever_is_written(
    method: str | None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that is fitted once."""
    searched, calls = [], []
    fitted = LogLinear.__call__

    def count(self: LogLinear, *data: object) -> object:
        calls.append(self)
        return fitted(self, *data)  # type: ignore[arg-type]

    def search(r2star: object, mask: object, _: object) -> object:
        searched.append(np.asarray(r2star))
        return mask

    monkeypatch.setattr(LogLinear, "__call__", count)
    monkeypatch.setattr(reconstruct_reference, "find_csf", search)
    asked = ["--r2star", method] if method else []
    assert run("out", "--csf", "auto", *asked)[0] == 0
    assert len(calls) == 1
    assert np.allclose(searched[0][OBJECT], RATES[OBJECT], rtol=1e-3)
