"""A scan of a head on disk: NIfTI and JSON."""

from pathlib import Path

import torch

import qsmnet
from qsmnet.io.files import prepare_output_folder
from qsmnet.io.nifti import write_volume
from qsmnet.io.together import written_together
from qsmnet.simulate import tissue
from qsmnet.simulate.head.scan import HeadScan
from qsmnet.simulate.write import affine_of

_UNITS = {
    "phase": "rad",
    "magnitude": "arbitrary",
    "chi": "ppm",
    "total_field": "ppm",
    "local_field": "ppm",
    "noise": "ppm (sd)",
    "r2star": "1/s",
    "phase_offset": "rad",
    "unwrapped_phase": "rad",
}
_VOLUMES = (*_UNITS, "mask", "segmentation")
#: Files of a scan's folder.
HEAD_FILES = (*(f"{name}.nii.gz" for name in _VOLUMES), "scan.json")


def write_head(folder: Path, scan: HeadScan, overwrite: bool = False) -> None:
    """Write `HEAD_FILES` into ``folder``; the affine carries voxel size and B0 direction (world z).

    The files appear together or not at all.

    Raises
    ------
    qsmnet.errors.OutputError
        If a file exists and ``overwrite`` is not set.
    qsmnet.errors.ResourceError
        If the disk is full.
    """
    prepare_output_folder(folder, HEAD_FILES, overwrite)
    affine = affine_of(scan.geometry, tuple(scan.chi.shape))
    with written_together(folder, "simulate", "scan.json", _sidecar(scan), overwrite) as staging:
        for name in _VOLUMES:
            volume = getattr(scan, name)
            stored = volume.to(torch.uint8) if volume.dtype == torch.bool else volume
            write_volume(staging / f"{name}.nii.gz", stored.numpy(), affine)


def _sidecar(scan: HeadScan) -> dict[str, object]:
    protocol = scan.protocol
    return {
        "units": _UNITS,
        "echo_times_s": list(protocol.echo_times),
        "b0_tesla": protocol.b0,
        "b0_dir": scan.geometry.b0_dir,
        "voxel_size_mm": scan.geometry.voxel_size,
        "repetition_time_s": protocol.repetition_time,
        "flip_angle_degrees": protocol.flip_angle,
        "snr": protocol.snr,
        "signal_noise": scan.signal_noise,
        "labels": {str(label): name for label, name in tissue.NAMES.items()},
        "qsmnet": qsmnet.__version__,
        "record": scan.record,
    }
