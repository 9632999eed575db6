"""``qsmnet compare``: the contract of the command line, good and bad."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from qsm_ci.qsm_eval import score_arrays

from qsmnet.cli import main
from qsmnet.dipole import Dipole
from qsmnet.errors import ResourceError
from qsmnet.geometry import Geometry
from qsmnet.weights.store import build_network, released_names, save_weights

SHAPE = (24, 22, 20)
Write = Callable[..., Path]


@pytest.fixture
def files(write_nifti: Write, affine: np.ndarray) -> dict[str, Path]:
    """Field, mask, truth and segmentation of a ball with regions in it."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    mask = (grid**2).sum(0) < 0.75
    seg = (1 + 9 * (grid[0] > 0) + 6 * (grid[1] > 0.4)) * mask
    chi = rng.normal(0, 0.05, 17)[seg] + rng.normal(0, 0.01, SHAPE)
    chi = (chi * mask).astype(np.float32)
    field = Dipole(SHAPE, Geometry.from_affine(affine), padding=2.0).forward(torch.from_numpy(chi))
    noisy = field.numpy() * mask + 0.001 * rng.normal(size=SHAPE).astype(np.float32)
    return {
        "local-field": write_nifti("field.nii.gz", noisy.astype(np.float32)),
        "mask": write_nifti("mask.nii.gz", mask.astype(np.uint8)),
        "truth": write_nifti("truth.nii.gz", chi),
        "segmentation": write_nifti("seg.nii.gz", seg.astype(np.uint8)),
    }


@pytest.fixture
def run(files: dict[str, Path], tmp_path: Path) -> Callable[..., int]:
    """Call the command with the files, without those named, and with further arguments."""

    def call(*arguments: str, without: tuple[str, ...] = (), inverters: str = "tkd") -> int:
        given = [f for n, p in files.items() if n not in without for f in (f"--{n}", str(p))]
        given += ["--inverters", *inverters.split(), "--out", str(tmp_path / "out")]
        return main(["compare", *given, *arguments])

    return call


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def data(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).get_fdata())


def test_everything_is_written_and_scored_as_qsm_ci_does(run, files, tmp_path, capsys):
    assert run("--noise", "0.001", inverters="tkd tikhonov") == 0
    out = tmp_path / "out"
    names = "metrics.csv metrics.md comparison.png comparison.json spectrum.csv spectrum.png"
    maps = "chi_tkd.nii.gz chi_tikhonov.nii.gz regions.csv"
    assert {p.name for p in out.iterdir()} == set(f"{names} {maps}".split())
    truth, mask = data(files["truth"]), data(files["mask"]) > 0
    truth = np.where(mask, truth - truth[mask].mean(), 0)
    for row in rows(out):
        chi = data(out / f"chi_{row['inverter']}.nii.gz")
        expected, _ = score_arrays(chi, truth, mask, seg=data(files["segmentation"]).astype(int))
        for key, value in expected.items():
            assert float(row[key]) == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True)
        assert float(row["seconds"]) > 0
        assert float(row["peak_memory_mib"]) >= 0
        assert row["error"] == ""
    assert "tikhonov" in capsys.readouterr().out


def test_maps_lie_on_the_input_s_grid(run, files, tmp_path, affine):
    assert run() == 0
    image = nib.load(tmp_path / "out" / "chi_tkd.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.get_data_dtype() == np.float32
    assert image.shape == SHAPE


def test_record_says_what_was_done(run, tmp_path):
    assert run("--set", "tkd.threshold=0.3", "--b0-dir", "0", "0", "2") == 0
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["methods"]["tkd"]["threshold"] == 0.3
    assert record["geometry"]["b0_dir_voxel_axes"] == [0, 0, 1]
    # not given: estimated, which smooth parts of the ball leave about right
    assert record["noise"]["source"] == "estimated from the field"
    assert 0.0005 < record["noise"]["root_mean_square_ppm"] < 0.01
    assert record["threads"] == torch.get_num_threads()
    assert {each["role"] for each in record["inputs"]} == {
        "local_field",
        "mask",
        "truth",
        "segmentation",
    }


def test_one_method_twice_under_two_names(run, tmp_path):
    settings = ("--set", "b.threshold=0.3", "--set", "a.threshold=0.1")
    assert run(*settings, inverters="a=tkd b=tkd") == 0
    a, b = rows(tmp_path / "out")
    assert (a["inverter"], b["inverter"]) == ("a", "b")
    assert a["nrmse"] != b["nrmse"]


def test_without_truth_there_are_maps_and_cost(run, tmp_path):
    assert run(without=("truth", "segmentation")) == 0
    (row,) = rows(tmp_path / "out")
    assert set(row) == {"inverter", "seconds", "peak_memory_mib", "error"}
    assert not (tmp_path / "out" / "spectrum.png").exists()
    assert (tmp_path / "out" / "comparison.png").exists()


def test_own_labels(run, tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("1\tLeft-Putamen\n10\tHippocampus\n7\tWM\n16\tpons\n")
    assert run("--labels", str(table)) == 0
    with (tmp_path / "out" / "regions.csv").open(newline="") as file:
        regions = {row["region"] for row in csv.DictReader(file)}
    assert regions == {"putamen", "Hippocampus", "white matter", "pons"}
    (row,) = rows(tmp_path / "out")
    assert row["calc_streak"] == "nan"  # 16 is no calcification here
    assert float(row["nrmse_tissue"]) > 0


def test_a_failing_method_keeps_its_row(run, tmp_path, capsys):
    method = "class Bad:\n    takes = 'local_field'\n    def __call__(self, local):\n"
    (tmp_path / "bad_for_compare.py").write_text(method + "        raise RuntimeError('no luck')\n")
    (tmp_path / "inverter").mkdir()
    (tmp_path / "inverter" / "bad.yaml").write_text("_target_: bad_for_compare.Bad\n")
    assert run("--config-dir", str(tmp_path), inverters="bad tkd") == 0
    bad, good = rows(tmp_path / "out")
    assert bad["error"] == "no luck"
    assert bad["nrmse"] == ""
    assert float(good["nrmse"]) > 0
    assert "failed: no luck" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["failed"] == {"bad": "no luck"}
    # nothing but failures is an error, and leaves nothing new
    arguments = ("--config-dir", str(tmp_path), "--out", str(tmp_path / "alone"))
    assert run(*arguments, inverters="bad") == 1
    assert not (tmp_path / "alone").exists()


def test_existing_results_are_safe(run, tmp_path):
    assert run() == 0
    before = (tmp_path / "out" / "metrics.csv").read_bytes()
    assert run() == 8
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == before
    assert run("--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "inverters", "code", "words"),
    [
        ((), "tkdd", 2, "did you mean 'tkd'"),
        (("--set", "tkd.treshold=0.2"), "tkd", 2, "threshold"),
        (("--set", "tv.regularisation=1"), "tkd", 2, "names no inverter"),
        ((), "tkd tkd", 2, "there twice"),
        ((), "../x=tkd", 2, "is no name"),
        (("--weights", "mine.safetensors"), "tkd", 2, "no method"),
        (("--weights", "absent.safetensors"), "kqsm", 6, "absent.safetensors"),
        (("--noise", "-1"), "tkd", 5, "--noise"),
        (("--labels", "absent.tsv"), "tkd", 3, "absent.tsv"),
        (("--truth", "absent.nii.gz"), "tkd", 3, "absent.nii.gz"),
        (("--out", ""), "tkd", 2, "--out"),
        (("--overwr",), "tkd", 2, "--overwr"),
        (("--nonsense", "x"), "tkd", 2, "--nonsense"),
        (("--set", "tkd.padding=inf"), "tkd", 2, "padding"),
    ],
)
def test_wrong_options_are_one_line(run, tmp_path, capsys, arguments, inverters, code, words):
    assert run(*arguments, inverters=inverters) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert not (tmp_path / "out").exists()


def test_broken_truth_and_labels_are_named(run, write_nifti, tmp_path, capsys):
    hole = write_nifti("hole.nii.gz", np.full(SHAPE, np.nan, dtype=np.float32))
    half = write_nifti("half.nii.gz", np.full(SHAPE, 0.5, dtype=np.float32))
    other = write_nifti("other.nii.gz", np.zeros((24, 22, 18), dtype=np.float32))
    huge = write_nifti("huge.nii.gz", np.full(SHAPE, 2.0**40, dtype=np.float64))
    wave = write_nifti("wave.nii.gz", np.ones(SHAPE, dtype=np.complex64))
    for option, path, code in (
        ("--segmentation", huge, 4),
        ("--segmentation", wave, 4),
        ("--truth", wave, 4),
        ("--truth", hole, 9),
        ("--truth", other, 4),
        ("--segmentation", half, 4),
        ("--segmentation", other, 4),
    ):
        assert run(option, str(path)) == code
        # one line: no method has run before
        (line,) = capsys.readouterr().err.splitlines()
        assert path.name in line
    assert not (tmp_path / "out").exists()


def test_files_of_an_earlier_comparison_do_not_stay(run, tmp_path):
    out = tmp_path / "out"
    assert run("--noise", "0.001", inverters="tkd tikhonov") == 0
    (out / "mine.txt").write_text("")
    assert run("--noise", "0.001", "--overwrite", without=("segmentation",)) == 0
    left = {path.name for path in out.iterdir()}
    assert "mine.txt" in left
    assert "chi_tkd.nii.gz" in left
    assert not left & {"chi_tikhonov.nii.gz", "regions.csv"}
    record = json.loads((out / "comparison.json").read_text())
    assert {each["file"] for each in record["outputs"]} | {"comparison.json", "mine.txt"} == left


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    def full(*_: object, **__: object) -> None:
        raise ResourceError(tmp_path, "cannot be written: no space left", "free some disk space")

    monkeypatch.setattr("qsmnet.evaluate.save.save_figure", full)
    assert run() == 7
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.count("error") == 1


def test_weights_of_another_network_are_refused(run, tmp_path, capsys):
    if not {"kqsm", "unet"} <= set(released_names()):
        pytest.skip("no released weights")
    network = {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 4]}
    path = tmp_path / "mine.safetensors"
    save_weights(path, build_network(network, "test").state_dict(), {"network": network})
    assert run("--weights", str(path), inverters="kqsm") == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert "choose --inverter unet" in line
    assert run("--weights", str(path), inverters="unet") == 0


def test_settings_of_each_inverter(run, tmp_path):
    settings = ("--set", "tkd.kernel=prism", "tikhonov.kernel=sampled")
    assert run(*settings, inverters="tkd tikhonov") == 0
    methods = json.loads((tmp_path / "out" / "comparison.json").read_text())["methods"]
    assert (methods["tkd"]["kernel"], methods["tikhonov"]["kernel"]) == ("prism", "sampled")


def test_one_kernel_for_all_that_have_one(run, tmp_path):
    given = ("--kernel", "prism", "--set", "tv.kernel=sampled")
    inverters = "tkd tikhonov tv" + (" unet" if "unet" in released_names() else "")
    assert run(*given, inverters=inverters) == 0
    methods = json.loads((tmp_path / "out/comparison.json").read_text())["methods"]
    used = {name: each.get("kernel") for name, each in methods.items()}
    assert used | {"unet": None} == {
        "tkd": "prism",
        "tikhonov": "prism",
        "tv": "sampled",
        "unet": None,
    }


def test_nobody_reads_the_table(files, tmp_path):
    given = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "qsmnet.cli", "compare", *given, "--inverters", "tkd"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == "qsmnet: tkd ...\n"
    assert (tmp_path / "out" / "metrics.csv").exists()
