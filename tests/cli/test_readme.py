"""Every qsmnet command of README.md is run, on data of a size that fits into a test."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmnet.units import radians_per_ppm
from qsmnet.weights.store import released_names

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf8")
VERBS = {"simulate", "train", "reconstruct", "compare", "demo", "doctor"}
#: What makes a command small; everything else is as printed.
SMALLER = {
    "simulate": ("simulator.shape=[40,48,40]",),
    "train": ("trainer.max_steps=2", "epoch=1", "data.phantoms=2"),
}
#: A file that each verb must have left, by its --out or out=.
LEAVES = {
    "simulate": "contact_sheet.png",
    "train": "weights.safetensors",
    "reconstruct": "chi.nii.gz",
    "compare": "metrics.csv",
    "demo": "metrics.csv",
}
LEARNED = {"kqsm", "unet"}


def commands() -> list[list[str]]:
    """Arguments of each qsmnet line in the bash blocks, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("qsmnet ")]


def parameters() -> list:
    slow = {"demo": [pytest.mark.slow]}
    return [
        pytest.param(words, id=f"{i}-{words[0]}", marks=slow.get(words[0], []))
        for i, words in enumerate(commands())
    ]


def run(words, folder):
    program = (sys.executable, "-P", "-m", "qsmnet.cli")
    smaller = SMALLER.get(words[0], ())
    if "--phase" in words:  # the small scan that stands for a head has no brain to extract
        smaller = (*smaller, "--mask", "magnitude")
    return subprocess.run(
        [*program, *words, *smaller], cwd=folder, capture_output=True, text=True, check=False
    )


def write_scan(folder, scene):
    """Three echoes of a scene at 7 T, phase wrapped into -pi to pi, with noise."""
    field = nib.load(scene / "local_field.nii.gz")
    mask = nib.load(scene / "mask.nii.gz").get_fdata() > 0
    ramp = np.linspace(-0.3, 0.3, mask.shape[2])
    magnitude = np.where(mask, 100.0, 1.0)
    rng = np.random.default_rng(0)
    echoes = []
    for seconds in (0.004, 0.008, 0.012):
        phase = 0.5 + radians_per_ppm(seconds, 7.0) * (field.get_fdata() + ramp)
        noise = rng.normal(size=(2, *mask.shape))
        echoes.append(magnitude * np.exp(1j * phase) + noise[0] + 1j * noise[1])
    signal = np.stack(echoes, axis=-1)
    for name, values in (("phase", np.angle(signal)), ("magnitude", np.abs(signal))):
        image = nib.Nifti1Image(values.astype(np.float32), field.affine)
        nib.save(image, folder / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which README's simulate line was run, with a scan in it."""
    folder = tmp_path_factory.mktemp("readme")
    simulate = next(words for words in commands() if words[0] == "simulate")
    result = run(simulate, folder)
    assert result.returncode == 0, result.stderr
    write_scan(folder, folder / "phantoms" / "scene_000")
    return folder


def output(words, folder):
    places = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    return folder / (places[0] if places else words[words.index("--out") + 1])


def test_readme_has_an_example_of_every_verb():
    assert {words[0] for words in commands()} == VERBS


@pytest.mark.parametrize("words", parameters())
def test_command_of_readme(words, workplace):
    missing = LEARNED & set(words) - set(released_names())
    if missing:
        pytest.skip(f"no weights of {sorted(missing)}")
    if words[0] != "simulate":  # which the fixture ran
        result = run(words, workplace)
        assert result.returncode == 0, result.stderr
    if words[0] in LEAVES:
        assert (output(words, workplace) / LEAVES[words[0]]).stat().st_size > 0


def test_scan_gives_a_finite_map(workplace):
    (words,) = [words for words in commands() if "--phase" in words]
    result = run(["again" if word == "scan" else word for word in words], workplace)
    assert result.returncode == 0, result.stderr
    chi = nib.load(workplace / "again" / "chi.nii.gz")
    phase = nib.load(workplace / "phase.nii.gz")
    assert chi.get_data_dtype() == np.float32
    assert chi.shape == phase.shape[:3]
    assert np.allclose(chi.affine, phase.affine)
    values = chi.get_fdata()
    assert np.isfinite(values).all()
    assert 0.001 < values[values != 0].std() < 0.5
