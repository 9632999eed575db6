"""A scene on disk: NIfTI and JSON."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import qsmnet
from qsmnet.geometry import Geometry
from qsmnet.io.files import prepare_output_folder
from qsmnet.io.nifti import write_volume
from qsmnet.io.together import written_together
from qsmnet.simulate import tissue
from qsmnet.simulate.scene import Scene

#: Files of a scene's folder.
FILES = (
    "chi.nii.gz",
    "mask.nii.gz",
    "segmentation.nii.gz",
    "local_field.nii.gz",
    "local_field_exact.nii.gz",
    "noise.nii.gz",
    "scene.json",
)
#: One file more, where the field is known elsewhere than on the mask.
FIELD_SUPPORT = "field_support.nii.gz"


def write_scene(folder: Path, scene: Scene, overwrite: bool = False) -> None:
    """Write `FILES` into ``folder``; the affine carries voxel size and B0 direction (world z).

    An unmasked scene has `FIELD_SUPPORT` too. The files appear together or not at all.

    Raises
    ------
    qsmnet.errors.OutputError
        If a file exists and ``overwrite`` is not set.
    qsmnet.errors.ResourceError
        If the disk is full.
    """
    prepare_output_folder(folder, (*FILES, FIELD_SUPPORT), overwrite)
    volumes = {
        "chi": scene.chi,
        "mask": scene.mask.to(torch.uint8),
        "segmentation": scene.segmentation,
        "local_field": scene.local_field,
        "local_field_exact": scene.local_field_exact,
        "noise": scene.noise,
    }
    if not torch.equal(scene.field_support, scene.mask):
        volumes["field_support"] = scene.field_support.to(torch.uint8)
    affine = affine_of(scene.geometry, tuple(scene.chi.shape))
    sidecar = _sidecar(scene, "field_support" if "field_support" in volumes else "mask")
    with written_together(folder, "simulate", "scene.json", sidecar, overwrite) as staging:
        for name, volume in volumes.items():
            write_volume(staging / f"{name}.nii.gz", volume.cpu().numpy(), affine)
    if "field_support" not in volumes:
        # that of the scene before would be read as this one's
        (folder / FIELD_SUPPORT).unlink(missing_ok=True)


def _sidecar(scene: Scene, known_on: str) -> dict[str, object]:
    return {
        "units": {
            "chi": "ppm",
            "local_field": "ppm",
            "local_field_exact": "ppm",
            "noise": "ppm (sd)",
        },
        "voxel_size_mm": scene.geometry.voxel_size,
        "b0_dir": scene.geometry.b0_dir,
        "kernel": scene.kernel,
        "field_known_on": known_on,
        "labels": {str(label): name for label, name in tissue.NAMES.items()},
        "qsmnet": qsmnet.__version__,
        "record": scene.record,
    }


def affine_of(geometry: Geometry, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return a 4x4 affine whose world z is B0 and whose origin is the grid's middle.

    Any rotation about B0 would do; the one chosen turns B0 onto z the shortest way, where it points
    down after half a turn about x: next to -z the shortest way is any, and rounding would choose.
    """
    b0 = np.array(geometry.b0_dir)
    half_turn = np.diag([1.0, -1.0, -1.0]) if b0[2] < 0 else np.eye(3)
    cross = np.cross(half_turn @ b0, [0.0, 0.0, 1.0])
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    rotation = (np.eye(3) + skew + skew @ skew / (1 + abs(b0[2]))) @ half_turn
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(geometry.voxel_size)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine
