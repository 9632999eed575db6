"""``qsmnet reconstruct --reference``: what a map is relative to, both numbers in the record."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmnet.cli import main, reconstruct_reference

Run = Callable[..., tuple[int, Path]]
SHAPE = (20, 22, 18)
_GRID = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) // 2
OBJECT = (_GRID**2).sum(0) < 64
REGION = (np.abs(_GRID - np.reshape([2, 1, 0], (3, 1, 1, 1))) < 2).all(0)
FLUID = (np.abs(_GRID + np.reshape([3, 1, 0], (3, 1, 1, 1))) < 2).all(0)


@pytest.fixture
def run(write_nifti: Callable[..., Path], tmp_path: Path) -> Run:
    """Reconstruct a local field; options and the name of the folder are free."""
    field = np.random.default_rng(0).normal(0, 0.01, SHAPE).astype(np.float32)
    files = {
        "--local-field": write_nifti("field.nii.gz", field),
        "--mask": write_nifti("mask.nii.gz", OBJECT.astype(np.uint8)),
    }
    write_nifti("region.nii.gz", REGION.astype(np.uint8))
    write_nifti("fluid.nii.gz", FLUID.astype(np.uint8))

    def run(name: str, *options: str) -> tuple[int, Path]:
        given = [part for option, file in files.items() for part in (option, str(file))]
        out = tmp_path / name
        return main(["reconstruct", *given, "--inverter", "tkd", *options, "--out", str(out)]), out

    return run


def _map(out: Path) -> np.ndarray:
    return np.asarray(nib.load(out / "chi.nii.gz").dataobj)


def _record(out: Path) -> dict:
    return json.loads((out / "chi.json").read_text())["reference"]


@pytest.mark.parametrize(("zero", "where"), [("region", REGION), ("csf", FLUID)])
def test_zero_lies_where_it_is_asked_for(
    zero: str, where: np.ndarray, run: Run, tmp_path: Path
) -> None:
    named = str(tmp_path / "region.nii.gz") if zero == "region" else "csf"
    options = ["--csf", str(tmp_path / "fluid.nii.gz"), "--reference"]
    plain = _map(run("plain", *options, "none")[1])
    code, out = run("out", *options, named)
    assert code == 0
    found, record = _map(out), _record(out)
    assert found[where].mean() == pytest.approx(0, abs=1e-6)
    assert record["subtracted_ppm"] == pytest.approx(plain[where].mean(), abs=1e-6)
    assert np.allclose((plain - found)[OBJECT], record["subtracted_ppm"], atol=1e-6)
    assert record["mean_in_mask_ppm"] == pytest.approx(found[OBJECT].mean(), abs=1e-6)
    assert "fluid" in record["method"] or zero == "region"


def test_regions_are_told_relative_to_the_whole_mask(run: Run, tmp_path: Path) -> None:
    """Whatever the zero of the map is."""
    _, out = run("out", "--csf", str(tmp_path / "fluid.nii.gz"))
    (level,) = _record(out)["regions_relative_to_mean_over_mask"]
    found = _map(out)
    assert level["name"] == "csf"
    assert level["voxels"] == FLUID.sum()
    assert level["mean"] == pytest.approx(found[FLUID].mean() - found[OBJECT].mean(), abs=1e-6)
    assert level["sd"] == pytest.approx(found[FLUID].std(), abs=1e-6)
    assert _record(run("without")[1])["regions_relative_to_mean_over_mask"] == []


def test_fluid_cannot_be_found_in_a_field(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for number, options in enumerate((["--csf", "auto"], ["--reference", "csf"])):
        code, out = run(f"out{number}", *options)
        assert code == 2
        assert not out.exists()
        assert "--csf FILE" in capsys.readouterr().err


def test_a_region_outside_of_the_mask_is_refused(
    run: Run, write_nifti: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    outside = write_nifti("outside.nii.gz", (~OBJECT).astype(np.uint8))
    code, out = run("out", "--reference", str(outside))
    assert code == 4
    assert not out.exists()
    assert "no voxel of the region" in capsys.readouterr().err


def test_fluid_of_a_scan_is_found_in_its_decay(
    write_nifti: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def found(r2star: object, mask: object, _: object) -> object:
        asked.append(r2star)
        return mask

    monkeypatch.setattr(reconstruct_reference, "compose", lambda *_: lambda *_: "R2*")
    monkeypatch.setattr(reconstruct_reference, "find_csf", found)
    rng = np.random.default_rng(0)
    phase = rng.uniform(-0.1, 0.1, (*SHAPE, 2)).astype(np.float32)
    phase[0, 0, 0] = 3.0, -3.0
    magnitude = (50 * OBJECT[..., None] + rng.random((*SHAPE, 2))).astype(np.float32)
    files = ["--phase", str(write_nifti("p.nii.gz", phase))]
    files += ["--magnitude", str(write_nifti("m.nii.gz", magnitude))]
    files += ["--mask", str(write_nifti("o.nii.gz", OBJECT.astype(np.uint8)))]
    options = ["--echo-times", "0.004", "0.008", "--b0", "3", "--inverter", "tkd"]
    options += ["--background", "vsharp", "--set-background", "radii=[3,2]"]
    options += ["--reference", "csf", "--phase-range"]
    out = tmp_path / "out"
    arguments = [*files, *options, "-3.1416", "3.1416", "--out", str(out)]
    assert main(["reconstruct", *arguments]) == 0
    assert asked == ["R2*"]
    assert _record(out)["regions_relative_to_mean_over_mask"][0]["name"] == "csf"
