"""What `qsmnet reconstruct` writes: all of it, or nothing."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from qsmnet import __version__
from qsmnet.cli.reconstruct_inputs import Inputs
from qsmnet.evaluate.report import Panel, save_report
from qsmnet.io.files import sha256, write_json
from qsmnet.io.nifti import write_volume
from qsmnet.io.together import written_together
from qsmnet.pipeline import Reconstruction

#: Always written; the record is the map's sidecar.
RECORD = "chi.json"
RESULTS = ("chi.nii.gz", RECORD, "report.png")
_WINDOW = (-0.1, 0.1)


@dataclass(frozen=True, slots=True)
class OwnMap:
    """A map beside the susceptibility that is a result, with a sidecar of its own.

    Parameters
    ----------
    name
        Of both files, without suffix.
    volume
        The map.
    record
        What the sidecar says.
    """

    name: str
    volume: Tensor
    record: Mapping[str, object]


def intermediates(result: Reconstruction) -> dict[str, Tensor]:
    """File name -> volume of everything that ``--keep`` writes."""
    local, total = result.local_field, result.total_field
    field = local or total
    kept: dict[str, Tensor | float | None] = {
        "mask.nii.gz": result.susceptibility.mask,
        "uncertainty.nii.gz": result.susceptibility.uncertainty,
        "unwrapped_phase.nii.gz": result.unwrapped,
        "total_field.nii.gz": total.field if total else None,
        "total_field_mask.nii.gz": total.mask if total else None,
        "local_field.nii.gz": local.field if local else None,
        "field_support.nii.gz": local.support if local else None,
        "noise.nii.gz": field.noise if field else None,
        "magnitude.nii.gz": field.magnitude if field else None,
    }
    return {name: volume for name, volume in kept.items() if isinstance(volume, Tensor)}


def planned_files(keep: bool) -> tuple[str, ...]:
    """Names of everything that may be written, known before anything is computed."""
    names: tuple[str, ...] = (
        "mask",
        "uncertainty",
        "unwrapped_phase",
        "total_field",
        "total_field_mask",
    )
    names += ("local_field", "field_support", "noise", "magnitude")
    return RESULTS + (tuple(f"{name}.nii.gz" for name in names) if keep else ())


def sidecar(
    inputs: Inputs,
    result: Reconstruction,
    methods: Mapping[str, Mapping[str, object]],
    reference: Mapping[str, object],
) -> dict[str, Any]:
    """Everything needed to say how the map was made and to make it again; file names only."""
    chi, field = result.susceptibility, result.local_field or result.total_field
    geometry = inputs.data.geometry
    noise = field.noise if field else None
    inside = chi.chi[chi.mask]
    return {
        "description": "Magnetic susceptibility. Research use only, not a medical device.",
        "units": "ppm",
        "reference": dict(reference),
        "statistics": {
            "voxels": int(chi.mask.sum()),
            "mean_ppm": float(inside.mean()),
            "sd_ppm": float(inside.std()),
        },
        "noise": {
            "root_mean_square_ppm": _level(noise, chi.mask),
            "source": result.noise_source,
        },
        "geometry": {"voxel_size_mm": geometry.voxel_size, "b0_dir_voxel_axes": geometry.b0_dir},
        "acquisition": inputs.record,
        "methods": _without_folders(methods),
        "chosen": [asdict(each) for each in chi.chosen],
        "flags": [*inputs.flags, *result.flags],
        "inputs": [
            {"role": role, "file": path.name, "sha256": sha256(path)} for role, path in inputs.files
        ],
        "software": {
            "qsmnet": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def write_outputs(
    folder: Path,
    inputs: Inputs,
    result: Reconstruction,
    record: Mapping[str, Any],
    title: str,
    keep: bool,
    overwrite: bool,
    beside: Sequence[OwnMap] = (),
) -> None:
    """Write map, sidecar, report, what is ``beside``, and with ``keep`` the intermediates.

    All of it, or nothing.

    Raises
    ------
    OutputError, ResourceError
        If something cannot be written; the folder is then as it was.
    """
    sources = [path for _, path in inputs.files]
    with written_together(folder, "reconstruct", RECORD, record, overwrite, sources) as staging:
        affine, code = inputs.reference.affine, inputs.reference.space_code
        write_volume(staging / "chi.nii.gz", result.susceptibility.chi, affine, space_code=code)
        for name, volume in intermediates(result).items() if keep else ():
            write_volume(staging / name, volume, affine, space_code=code)
        for each in beside:
            write_volume(staging / f"{each.name}.nii.gz", each.volume, affine, space_code=code)
            write_json(staging / f"{each.name}.json", each.record)
        save_report(
            staging / "report.png",
            _panels(result),
            result.susceptibility.mask.numpy(),
            affine,
            title,
            _notes(inputs, result, record),
        )


def _panels(result: Reconstruction) -> list[Panel]:
    mask = result.susceptibility.mask.numpy()
    panels, local, total = [], result.local_field, result.total_field
    field = local or total
    if field is not None and field.magnitude is not None:
        magnitude = field.magnitude.numpy()
        bright = float(np.percentile(magnitude[mask], 99.5)) or 1.0
        panels.append(Panel("magnitude", magnitude, (0.0, bright), "arbitrary unit"))
    if local is not None:
        panels.append(Panel("local field", local.field.numpy(), _WINDOW, "ppm"))
    elif total is not None:
        panels.append(Panel("total field", total.field.numpy(), None, "ppm"))
    return [*panels, Panel("susceptibility", result.susceptibility.chi.numpy(), _WINDOW, "ppm")]


def _notes(inputs: Inputs, result: Reconstruction, record: Mapping[str, Any]) -> Sequence[str]:
    geometry, noise = inputs.data.geometry, record["noise"]
    voxel = " x ".join(f"{edge:.3g}" for edge in geometry.voxel_size)
    direction = " ".join(f"{component:.2f}" for component in geometry.b0_dir)
    reference, statistics = record["reference"], record["statistics"]
    lines = [
        f"voxels {voxel} mm, B0 along ({direction}) in voxel axes",
        f"noise of the field {noise['root_mean_square_ppm']:.2g} ppm ({noise['source']})",
        f"reference: {reference['method']} ({reference['subtracted_ppm']:.3g} ppm subtracted); "
        f"sd in the mask {statistics['sd_ppm']:.3g} ppm; {statistics['voxels']} voxels, outlined",
    ]
    return [*lines, *(f"! {flag}" for flag in (*inputs.flags, *result.flags))]


def _level(noise: Tensor | float | None, mask: Tensor) -> float:
    return (
        float(noise[mask].square().mean().sqrt())
        if isinstance(noise, Tensor)
        else float(noise or 0)
    )


def _without_folders(value: object) -> object:
    """Replace paths by their file names: a folder often names a patient or a user."""
    if isinstance(value, Mapping):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value
