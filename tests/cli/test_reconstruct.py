"""``qsmnet reconstruct``: the contract of the command line, good and bad."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsmnet.cli import main
from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.io.files import sha256
from qsmnet.units import radians_per_ppm

SHAPE = (24, 22, 20)
B0 = 3.0
ECHO_TIMES = (0.005, 0.010, 0.015)
Write = Callable[..., Path]


def _ball(centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(SHAPE) - (np.array(SHAPE) // 2).reshape(3, 1, 1, 1)
    offsets = (grid - np.array(centre).reshape(3, 1, 1, 1)) * np.reshape(
        [0.9, 1.1, 1.6], (3, 1, 1, 1)
    )
    return np.sqrt((offsets**2).sum(0)) < radius


OBJECT = _ball((0, 0, 0), 9.5)
CHI = (0.2 * _ball((2, 1, 0), 3) - 0.15 * _ball((-4, 0, 0), 2)).astype(np.float32)


def _field(affine: np.ndarray) -> np.ndarray:
    return (
        Dipole(SHAPE, Geometry.from_affine(affine), padding=1.5)
        .forward(torch.from_numpy(CHI))
        .numpy()
    )


@pytest.fixture
def local(write_nifti: Write, affine: np.ndarray) -> list[str]:
    """Arguments of a local field."""
    noise = 0.001 * np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    field = write_nifti("field.nii.gz", _field(affine) * OBJECT + noise)
    mask = write_nifti("mask.nii.gz", OBJECT.astype(np.uint8))
    return ["--local-field", str(field), "--mask", str(mask), "--inverter", "tkd"]


def _signal(affine: np.ndarray) -> np.ndarray:
    x = np.indices(SHAPE)[0] / 10
    phase = np.stack([x + radians_per_ppm(t, B0) * (_field(affine) + 0.3) for t in ECHO_TIMES], -1)
    rng = np.random.default_rng(2)
    noise = rng.normal(size=phase.shape) + 1j * rng.normal(size=phase.shape)
    return 100 * OBJECT[..., None] * np.exp(1j * phase) + noise


@pytest.fixture
def raw(write_nifti: Write, affine: np.ndarray) -> list[str]:
    """Arguments of a scan, in 4-D files."""
    signal = _signal(affine)
    phase = write_nifti("phase.nii.gz", np.angle(signal).astype(np.float32))
    magnitude = write_nifti("magnitude.nii.gz", np.abs(signal).astype(np.float32))
    times = [str(time) for time in ECHO_TIMES]
    files = ["--phase", str(phase), "--magnitude", str(magnitude), "--echo-times", *times]
    stages = ["--mask", "magnitude", "--background", "vsharp", "--set-background", "radii=[3,2]"]
    return [*files, "--b0", str(B0), *stages, "--inverter", "tkd"]


def _run(arguments: list[str], out: Path) -> int:
    return main(["reconstruct", *arguments, "--out", str(out)])


def _load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_a_local_field_gives_a_map_on_its_grid(
    local: list[str], tmp_path: Path, affine: np.ndarray
) -> None:
    out = tmp_path / "out"
    assert _run([*local, "--set", "threshold=0.2", "--noise", "0.001"], out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["chi.json", "chi.nii.gz", "report.png"]
    image = nib.load(out / "chi.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert np.allclose(image.affine, affine, atol=1e-6)
    assert np.corrcoef(_load(out / "chi.nii.gz")[OBJECT], CHI[OBJECT])[0, 1] > 0.85
    record = json.loads((out / "chi.json").read_text())
    assert record["units"] == "ppm"
    assert record["methods"]["inverter"]["threshold"] == 0.2
    assert record["noise"] == {"root_mean_square_ppm": 0.001, "source": "given"}
    assert record["inputs"][0] == {
        "role": "local_field",
        "file": "field.nii.gz",
        "sha256": sha256(local[1]),
    }


def test_raw_phase_gives_a_map_and_every_intermediate(raw: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _run([*raw, "--keep"], out) == 0
    kept = {path.name.removesuffix(".nii.gz") for path in out.glob("*.nii.gz")}
    assert kept >= {"chi", "mask", "unwrapped_phase", "total_field", "local_field", "noise"}
    inside = _load(out / "mask.nii.gz") > 0
    assert np.corrcoef(_load(out / "chi.nii.gz")[inside], CHI[inside])[0, 1] > 0.6
    record = json.loads((out / "chi.json").read_text())
    assert record["acquisition"]["phase_stored_as"].startswith("radians")
    assert set(record["methods"]) == {
        "mask",
        "offset",
        "unwrap",
        "fit",
        "background",
        "inverter",
    }


def test_one_file_an_echo_is_the_same(
    raw: list[str], tmp_path: Path, write_nifti: Write, affine: np.ndarray
) -> None:
    signal = _signal(affine)
    phases = [
        write_nifti(f"p{e}.nii", np.angle(signal[..., e]).astype(np.float32)) for e in range(3)
    ]
    sizes = [write_nifti(f"m{e}.nii", np.abs(signal[..., e]).astype(np.float32)) for e in range(3)]
    apart = ["--phase", *map(str, phases), "--magnitude", *map(str, sizes), *raw[4:]]
    assert _run(raw, tmp_path / "one") == 0
    assert _run(apart, tmp_path / "two") == 0
    one, two = (_load(tmp_path / name / "chi.nii.gz") for name in ("one", "two"))
    assert np.array_equal(one, two)


def test_the_sign_can_be_flipped(raw: list[str], tmp_path: Path) -> None:
    assert _run(raw, tmp_path / "one") == 0
    assert _run([*raw, "--phase-sign", "-1"], tmp_path / "two") == 0
    one, two = (_load(tmp_path / name / "chi.nii.gz") for name in ("one", "two"))
    assert np.allclose(one, -two, atol=1e-4)


def test_a_total_field_gives_the_same_as_the_scan_it_came_from(
    raw: list[str], tmp_path: Path
) -> None:
    assert _run([*raw, "--keep"], tmp_path / "one") == 0
    kept = tmp_path / "one"
    total = ["--total-field", str(kept / "total_field.nii.gz"), "--background", "vsharp"]
    total += ["--set-background", "radii=[3,2]"]
    total += ["--mask", str(kept / "total_field_mask.nii.gz"), "--inverter", "tkd"]
    assert _run(total, tmp_path / "two") == 0
    one, two = (_load(tmp_path / name / "chi.nii.gz") for name in ("one", "two"))
    assert np.allclose(one, two, atol=1e-5)
    assert "estimated" in json.loads((tmp_path / "two" / "chi.json").read_text())["noise"]["source"]


def test_equal_inputs_give_equal_bytes(local: list[str], tmp_path: Path) -> None:
    assert _run(local, tmp_path / "one") == 0
    assert _run(local, tmp_path / "two") == 0
    for name in ("chi.nii.gz", "chi.json", "report.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_folder_gets_into_the_record(local: list[str], tmp_path: Path) -> None:
    assert _run(local, tmp_path / "out") == 0
    assert str(tmp_path) not in (tmp_path / "out" / "chi.json").read_text()


def test_field_support_noise_map_and_direction(
    local: list[str], tmp_path: Path, write_nifti: Write
) -> None:
    support = write_nifti("support.nii.gz", _ball((0, 0, 0), 8).astype(np.float32))
    noise = write_nifti("noise.nii.gz", np.full(SHAPE, 0.002, dtype=np.float32))
    extra = ["--field-support", str(support), "--noise", str(noise), "--b0-dir", "0", "0", "-1"]
    assert _run([*local, *extra, "--keep", "--reference", "none"], tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "chi.json").read_text())
    assert record["geometry"]["b0_dir_voxel_axes"] == [0, 0, -1]
    assert record["noise"]["root_mean_square_ppm"] == pytest.approx(0.002)
    assert record["reference"]["subtracted_ppm"] == 0
    assert np.array_equal(_load(tmp_path / "out" / "field_support.nii.gz"), _load(support))


BAD_LOCAL = {
    "no such file": (["--local-field", "nowhere.nii.gz"], 3, "does not exist"),
    "unknown inverter": (["--inverter", "tdk"], 2, "tkd"),
    "unknown parameter": (["--set", "treshold=0.2"], 2, "threshold"),
    "parameter out of range": (["--set", "threshold=7"], 2, "threshold"),
    "not a number": (["--set", "threshold=high"], 2, "threshold"),
    "negative noise": (["--noise", "-0.1"], 5, "--noise"),
    "noise file missing": (["--noise", "lots.nii"], 3, "lots.nii"),
    "direction without length": (["--b0-dir", "0", "0", "0"], 2, "--b0-dir"),
    "two inputs": (["--total-field", "f.nii.gz"], 2, "one of"),
    "no threads": (["--threads", "0"], 2, "--threads"),
    "unknown option": (["--nonsense"], 2, "nonsense"),
    "unknown mask": (["--mask", "wohle"], 2, "whole"),
    "mask that needs a magnitude": (["--mask", "magnitude"], 2, "--magnitude"),
    "weights for a classical method": (["--weights", "w.safetensors"], 2, "weights"),
    "phase range of a field": (["--phase-range", "-1", "1"], 2, "--phase-range"),
    "radius": (["--max-radius", "900"], 2, "--max-radius"),
}


@pytest.mark.parametrize("case", BAD_LOCAL)
def test_bad_input_is_one_line_and_nothing_is_written(
    case: str, local: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra, code, text = BAD_LOCAL[case]
    out = tmp_path / "deep" / "out"
    assert _run([*local, *extra], out) == code
    _assert_one_line(capsys, text)
    assert not out.parent.exists()


def _assert_one_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("qsmnet: error: ")
    assert "Fix: " in lines[0]
    assert text in lines[0]


BAD_RAW = {
    "echo times in ms": (["--echo-times", "5", "10", "15"], 5, "0.005 0.01 0.015"),
    "too few echo times": (["--echo-times", "0.005", "0.010"], 4, "3 echoes"),
    "equal echo times": (["--echo-times", "0.005", "0.005", "0.010"], 5, "increase"),
    "falling echo times": (["--echo-times", "0.015", "0.010", "0.005"], 5, "increase"),
    "echo time zero": (["--echo-times", "0", "0.010", "0.015"], 5, "--echo-times"),
    "b0 in mT": (["--b0", "3000"], 5, "mT"),
    "b0 in MHz": (["--b0", "127.7"], 5, "MHz"),
    "b0 negative": (["--b0", "-3"], 5, "--b0"),
    "b0 not a number": (["--b0", "three"], 2, "--b0"),
    "wrong phase range": (["--phase-range", "-1", "1"], 5, "phase.nii.gz"),
    "phase range reversed": (["--phase-range", "4", "-4"], 2, "--phase-range"),
    "phase sign": (["--phase-sign", "2"], 2, "--phase-sign"),
    "unknown unwrapping": (["--unwrap", "rome"], 2, "romeo"),
    "unknown background": (["--background", "vsarp"], 2, "vsharp"),
    "no sphere fits": (["--set-background", "radii=[1]"], 4, "sphere"),
    "noise of a scan": (["--noise", "0.1"], 2, "--noise"),
}


@pytest.mark.parametrize("case", BAD_RAW)
def test_bad_scans_are_refused(
    case: str, raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra, code, text = BAD_RAW[case]
    assert _run([*raw, *extra], tmp_path / "out") == code
    _assert_one_line(capsys, text)
    assert not (tmp_path / "out").exists()


def test_an_ambiguous_phase_range_is_refused(
    raw: list[str], tmp_path: Path, write_nifti: Write, affine: np.ndarray
) -> None:
    small = np.angle(_signal(affine)).astype(np.float32) * np.float32(0.003674 / math.pi)
    arguments = ["--phase", str(write_nifti("small.nii.gz", small)), *raw[2:]]
    assert _run(arguments, tmp_path / "out") == 5
    assert _run([*arguments, "--phase-range", "-3.674e-3", "0.003674"], tmp_path / "out") == 0


def test_swapped_phase_and_magnitude_are_refused(raw: list[str], tmp_path: Path) -> None:
    swapped = ["--phase", raw[3], "--magnitude", raw[1], *raw[4:]]
    assert _run([*swapped, "--phase-range", "0", "1000"], tmp_path / "out") == 4


def test_masks_that_do_not_fit_are_refused(
    local: list[str], tmp_path: Path, write_nifti: Write, affine: np.ndarray
) -> None:
    moved = affine.copy()
    moved[0, 3] += 1
    masks = {
        "empty": write_nifti("empty.nii.gz", np.zeros(SHAPE, dtype=np.uint8)),
        "short": write_nifti("short.nii.gz", OBJECT[..., 1:].astype(np.uint8)),
        "moved": write_nifti("moved.nii.gz", OBJECT.astype(np.uint8), moved),
    }
    for path in masks.values():
        assert _run([*local, "--mask", str(path)], tmp_path / "out") == 4
    assert not (tmp_path / "out").exists()


def test_nan_in_the_mask_is_refused_and_outside_it_ignored(
    local: list[str], tmp_path: Path, write_nifti: Write, affine: np.ndarray
) -> None:
    field = _field(affine)
    field[0, 0, 0] = math.nan
    arguments = ["--local-field", str(write_nifti("nan.nii.gz", field)), *local[2:]]
    assert _run(arguments, tmp_path / "one") == 0
    assert np.isfinite(_load(tmp_path / "one" / "chi.nii.gz")).all()
    field[12, 11, 10] = math.nan
    arguments = ["--local-field", str(write_nifti("nan2.nii.gz", field)), *local[2:]]
    assert _run(arguments, tmp_path / "two") == 9
    assert not (tmp_path / "two").exists()


def test_a_field_in_hertz_is_refused(
    local: list[str], tmp_path: Path, write_nifti: Write, affine: np.ndarray
) -> None:
    hertz = write_nifti("hertz.nii.gz", _field(affine) * 3000)
    assert _run(["--local-field", str(hertz), *local[2:]], tmp_path / "out") == 5


def test_a_grid_without_orientation_needs_a_direction(
    local: list[str], tmp_path: Path, write_nifti: Write, affine: np.ndarray
) -> None:
    def forget(image: nib.Nifti1Image) -> None:
        image.set_sform(image.affine, 0)
        image.set_qform(image.affine, 0)

    field = write_nifti("lost.nii.gz", _field(affine), np.diag([0.9, 1.1, 1.6, 1]), forget)
    arguments = ["--local-field", str(field), "--mask", "whole", "--inverter", "tkd"]
    assert _run(arguments, tmp_path / "out") == 5
    assert _run([*arguments, "--b0-dir", "0", "0", "1"], tmp_path / "out") == 0


def test_an_output_that_exists_is_kept_unless_asked(local: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "chi.json").write_text("mine")
    assert _run(local, out) == 8
    assert [path.name for path in out.iterdir()] == ["chi.json"]
    assert (out / "chi.json").read_text() == "mine"
    assert _run([*local, "--overwrite"], out) == 0
    assert json.loads((out / "chi.json").read_text())["units"] == "ppm"


def test_an_input_is_never_replaced(local: list[str], tmp_path: Path, affine: np.ndarray) -> None:
    inside = tmp_path / "out" / "chi.nii.gz"
    inside.parent.mkdir()
    inside.write_bytes(Path(local[1]).read_bytes())
    before = sha256(inside)
    assert _run(["--local-field", str(inside), *local[2:], "--overwrite"], inside.parent) == 8
    assert sha256(inside) == before


def test_a_failure_while_writing_leaves_nothing(
    local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qsmnet.cli.reconstruct_outputs.save_report", fail)
    out = tmp_path / "deep" / "out"
    assert _run(local, out) == 130
    assert not out.parent.exists()


def test_automatic_strength_is_recorded(local: list[str], tmp_path: Path) -> None:
    """What was chosen, what was tried, and the same map when it is given as a number."""
    out = tmp_path / "out"
    assert _run([*local, "--set", "threshold=auto"], out) == 0
    record = json.loads((out / "chi.json").read_text())
    (choice,) = record["chosen"]
    assert record["methods"]["inverter"]["threshold"] == "auto"
    assert choice["parameter"] == "threshold"
    assert choice["value"] in [value for value, _ in choice["curve"]]
    again = tmp_path / "again"
    assert _run([*local, "--set", f"threshold={choice['value']}"], again) == 0
    chi = [nib.load(each / "chi.nii.gz").get_fdata() for each in (out, again)]
    np.testing.assert_array_equal(*chi)
    assert json.loads((again / "chi.json").read_text())["chosen"] == []


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a small untrained network, with their card."""
    from qsmnet.weights.store import build_network, save_weights

    network = {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 4]}
    path = tmp_path / "own.safetensors"
    trained = {"voxel_size_mm": [0.9, 1.1], "tilt_degrees": 10.0, "noise_ppm": [0.0, 0.01]}
    card = {"network": network, "trained_for": trained}
    save_weights(path, build_network(network, "test").state_dict(), card)
    return path


def test_own_weights_are_recorded_and_their_range_is_warned_of(
    local: list[str], tmp_path: Path, weights: Path
) -> None:
    learned = [*local, "--noise", "0.02", "--inverter", "unet", "--weights", str(weights)]
    assert _run(learned, tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "chi.json").read_text())
    assert record["weights"] == {"name": "own.safetensors", "sha256": sha256(weights)}
    assert record["methods"]["inverter"]["weights"] == "own.safetensors"
    for outside in ("voxel size", "typical noise of 0.02 ppm"):
        assert any(outside in flag for flag in record["flags"])


def test_damaged_weights_are_refused(local: list[str], tmp_path: Path, weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    learned = [*local, "--inverter", "unet", "--weights", str(weights)]
    assert _run(learned, tmp_path / "out") == 6
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", "--help"]) == 0
    assert "qsmnet reconstruct --phase" in capsys.readouterr().out


@pytest.mark.parametrize("inverter", ["tkd", "tv", "kqsm", "unet"])
def test_the_real_patch(outside_data: Path, tmp_path: Path, inverter: str) -> None:
    folder = outside_data / "gre_patch_7t"
    if not folder.is_dir():
        pytest.skip("gre_patch_7t is not there")
    magnitude = folder / "magnitude.nii.gz"
    scan = ["--phase", str(folder / "phase.nii.gz"), "--magnitude", str(magnitude)]
    scan += ["--echo-times", "0.004", "0.008", "0.012", "--b0", "7", "--inverter", inverter]
    scan += ["--mask", "whole", "--background", "vsharp", "--max-radius", "4"]
    assert _run(scan, tmp_path / "out") == 5
    assert _run([*scan, "--phase-range", "-0.003674", "0.003674"], tmp_path / "out") == 0
    chi = _load(tmp_path / "out" / "chi.nii.gz")
    assert np.isfinite(chi).all()
    # two veins run along y, one on each side of the midline; at the last echo they are the darkest
    late = _load(magnitude)[..., 2]
    for columns, plane in ((slice(5, 15), 11), (slice(34, 45), 12)):
        contrast = _contrast_of_the_vein(chi[..., plane], late[..., plane], columns)
        assert np.mean(contrast) > 0.01
        assert np.mean(contrast > 0) > 0.8


def _contrast_of_the_vein(chi: np.ndarray, magnitude: np.ndarray, columns: slice) -> np.ndarray:
    """Susceptibility in the darkest voxel of each row, over the median of the row around it."""
    rows = range(14, 42)
    darkest = [columns.start + int(np.argmin(magnitude[columns, y])) for y in rows]
    around = [np.median(chi[max(3, x - 6) : x + 7, y]) for x, y in zip(darkest, rows, strict=True)]
    return np.array([chi[x, y] for x, y in zip(darkest, rows, strict=True)]) - np.array(around)
