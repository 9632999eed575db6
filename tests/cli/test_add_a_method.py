"""docs/add-a-method.md, followed to the letter from outside of the repository."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "add-a-method.md").read_text("utf8")


def block(language: str) -> str:
    """The only fenced block of a language in the guide."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return found


def command() -> list[str]:
    program, *arguments = shlex.split(block("bash"))
    assert program == "qsmnet"
    return arguments


@pytest.fixture
def workplace(tmp_path):
    """The two files of the guide where it says they go, and a field to invert."""
    folder = tmp_path / "my-methods"
    (folder / "inverter").mkdir(parents=True)
    (folder / "kernel_sign.py").write_text(block("python"))
    (folder / "inverter" / "kernel_sign.yaml").write_text(block("yaml"))
    mask = np.zeros((24, 24, 20), np.uint8)
    mask[4:20, 4:20, 4:16] = 1
    field = np.random.default_rng(0).normal(0, 0.05, mask.shape).astype(np.float32) * mask
    nib.save(nib.Nifti1Image(field, np.eye(4)), tmp_path / "local_field.nii.gz")
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    return tmp_path


def run(arguments, folder):
    # -P: as the installed command does, without the current folder on the path
    program = (sys.executable, "-P", "-m", "qsmnet.cli")
    return subprocess.run(
        [*program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_guide_works_as_written(workplace):
    result = run(command(), workplace)
    assert result.returncode == 0, result.stderr
    chi = nib.load(workplace / "result" / "chi.nii.gz").get_fdata()
    mask = nib.load(workplace / "mask.nii.gz").get_fdata() > 0
    assert np.isfinite(chi).all()
    assert chi[mask].std() > 0
    assert not chi[~mask].any()


def test_parameter_of_the_new_method_is_checked(workplace):
    wrong = ["gain=-1" if word == "gain=3" else word for word in command()]
    result = run(wrong, workplace)
    assert result.returncode == 2
    assert "gain must be positive" in result.stderr
    assert not (workplace / "result" / "chi.nii.gz").exists()


def test_new_method_needs_its_folder(workplace):
    words = command()
    at = words.index("--config-dir")
    result = run(words[:at] + words[at + 2 :], workplace)
    assert result.returncode == 2
    assert "kernel_sign" in result.stderr
