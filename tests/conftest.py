"""Fixtures shared by all tests."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from qsmnet.geometry import Geometry

# what a property costs says nothing of it: a machine may be slow, or busy
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: Size of a tiny volume: odd, even, prime, no two alike, so that swapped axes show.
SHAPE = (8, 9, 11)


@pytest.fixture
def geometry() -> Geometry:
    """Anisotropic voxels and an oblique B0: what a careless method gets wrong."""
    return Geometry((0.9, 1.1, 1.6), (0.2, -0.3, 0.93))


@pytest.fixture
def affine() -> np.ndarray:
    """Affine of an anisotropic grid tilted by 20 degrees about x, with an offset."""
    angle = np.radians(20.0)
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([0.9, 1.1, 1.6])
    matrix[:3, 3] = (-10.0, 5.0, 2.0)
    return matrix


@pytest.fixture
def write_nifti(tmp_path: Path, affine: np.ndarray) -> Callable[..., Path]:
    """Factory of small NIfTI files in ``tmp_path``; random float32 data unless given."""

    def write(
        name: str = "volume.nii.gz",
        data: np.ndarray | None = None,
        matrix: np.ndarray = affine,
        edit: Callable[[nib.Nifti1Image], None] | None = None,
        kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    ) -> Path:
        if data is None:
            data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        image = kind(data, matrix)
        image.set_qform(matrix, 1)
        image.set_sform(matrix, 1)
        if edit is not None:
            edit(image)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def outside_data() -> Path:
    """Folder with optional real data; the test is skipped where there is none."""
    folder = os.environ.get("QSMNET_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("QSMNET_TEST_DATA is not set")
    return Path(folder)


def pytest_configure() -> None:
    """Commands that tests interrupt must hear it, also where the tests run in a shell's background.

    There SIGINT is ignored, which every process passes on to those that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
