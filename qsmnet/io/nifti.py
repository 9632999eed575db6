"""NIfTI volumes: read with every check that keeps a wrong file from becoming a wrong map."""

import difflib
import gzip
import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Shaped
from torch import Tensor

from qsmnet.errors import (
    InconsistentError,
    NumericalError,
    PhysicsError,
    UnreadableError,
    UsageError,
)
from qsmnet.geometry import Geometry
from qsmnet.io.files import write_bytes
from qsmnet.io.nifti_bytes import SUFFIXES, read_image

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

# the dipole kernel is three-dimensional: fewer slices hold no field along the missing axis
_LEAST_EDGE = 8
# NIfTI codes of a grid placed in the scanner (1) or aligned with another image of the session (2);
# 3 and 4 are atlas spaces, whose z is not the bore
_SCANNER_CODES = (1, 2)


@dataclass(frozen=True, slots=True)
class Volume:
    """A NIfTI file in memory.

    Parameters
    ----------
    data
        ``(x, y, z)`` or ``(echo, x, y, z)``; float32, bool for masks.
    affine
        4x4, voxel indices to mm.
    path
        Where it was read.
    space_code
        NIfTI code of the affine: 0 none, 1 scanner, 2 aligned, 3 and 4 atlas spaces.
    """

    data: Shaped[np.ndarray, "*echo x y z"]
    affine: Shaped[np.ndarray, "4 4"]
    path: Path
    space_code: int = 1

    @property
    def b0_known(self) -> bool:
        """Whether world z is the scanner's bore; if not, the caller must ask for B0's direction."""
        return self.space_code in _SCANNER_CODES

    @property
    def geometry(self) -> Geometry:
        """Voxel size in mm, and B0 direction: along world z, whatever `b0_known` says.

        Raises
        ------
        PhysicsError
            If the affine is singular or sheared, or a voxel edge is outside 0.05 to 10 mm.
        """
        try:
            return Geometry.from_affine(self.affine)
        except ValueError as error:
            fix = "repair the header, or convert the DICOM files again; sizes must be in mm"
            raise PhysicsError(self.path, str(error), fix) from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid size ``(x, y, z)``, without echoes."""
        x, y, z = self.data.shape[-3:]
        return x, y, z

    def tensor(self) -> Tensor:
        """Give the data as a torch tensor, which shares memory with ``data``."""
        return torch.from_numpy(self.data)


def read_volume(path: str | Path, ndim: int = 3) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file (``.nii``, ``.nii.gz``) and check everything a file can tell.

    The gzip stream is drained to its end, so that its CRC is checked: nibabel stops at the last
    voxel and lets 57 of 60 flipped bits pass. NaN and infinity are kept: callers look inside their
    mask.

    Parameters
    ----------
    path
        The file.
    ndim
        3 for one volume; 4 for echoes, which come first in the result. A 3-D file read with
        ``ndim=4`` is one echo.

    Returns
    -------
    Volume
        Data with the header's slope applied, the affine in use (sform, else qform), the path.

    Raises
    ------
    UnreadableError
        If the file is missing, a folder, empty, truncated, corrupt, or not NIfTI.
    ResourceError
        If it does not fit in memory.
    InconsistentError
        If it is complex, or has the wrong number of axes or fewer than 8 voxels along one.
    PhysicsError
        If qform and sform disagree, have an unknown code, the affine is not finite, singular or
        sheared, or voxel sizes are not between 0.05 and 10 mm.
    """
    file = Path(path)
    _check_exists(file)
    image = read_image(file)
    data = _arrange(file, image, ndim)
    affine, code = _affine_in_use(file, image.header)
    volume = Volume(data, affine, file, code)
    tilt = volume.geometry.tilt_degrees
    log.debug("%s: shape %s, B0 tilted by %.1f degrees", file.name, data.shape, tilt)
    return volume


def read_mask(path: str | Path) -> Volume:
    """Read a mask: ``data`` is bool, true above 0.5.

    The log says so where the file is not binary: shares or probabilities are cut at one half, and
    of labels every one is inside.

    Raises
    ------
    InconsistentError
        If the mask is empty.
    UnreadableError, PhysicsError
        As `read_volume`.
    """
    volume = read_volume(path)
    inside = volume.data > 0.5
    if not inside.any():
        raise InconsistentError(path, "mask is empty", "give a mask with voxels above 0.5")
    if not np.isin(volume.data, (0.0, 1.0)).all():
        what = "holds labels or numbers above 1" if (volume.data > 1).any() else "holds shares"
        log.warning("%s is not binary (%s): it is cut at 0.5", volume.path.name, what)
    return Volume(inside, volume.affine, volume.path, volume.space_code)


def check_same_grid(reference: Volume, *others: Volume) -> None:
    """Refuse volumes on different grids; differences below a tenth of a voxel only go to the log.

    Raises
    ------
    InconsistentError
        With both shapes, or the largest displacement in voxels.
    """
    for other in others:
        _check_same_shape(reference, other)
        shift = _displacement(reference, other)
        if shift > 0.1:
            problem = f"its affine is {shift:.2g} voxels away from that of {reference.path.name}"
            raise InconsistentError(other.path, problem, "resample it to the same grid")
        if shift > 1e-5:
            name = other.path.name
            log.info(
                "%s: affine differs by %.1g voxels; that of %s is used",
                name,
                shift,
                reference.path.name,
            )


def write_volume(
    path: str | Path,
    data: Shaped[np.ndarray, "*echo x y z"] | Shaped[Tensor, "*echo x y z"],
    affine: Shaped[np.ndarray, "4 4"],
    overwrite: bool = False,
    space_code: int = 1,
) -> None:
    """Write a NIfTI file atomically, with a new header that carries nothing over from any input.

    Equal arrays give equal bytes (the gzip stream holds no time and no name).

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    data
        ``(x, y, z)``, or ``(echo, x, y, z)`` which is stored as ``(x, y, z, echo)``. Floats become
        float32 without slope, complex complex64, bool uint8, integers the smallest of uint8,
        int16, int32.
    affine
        4x4, written as sform and qform.
    overwrite
        Replace an existing file.
    space_code
        NIfTI code of the affine, from the `Volume` it came from.

    Raises
    ------
    NumericalError
        If the data hold NaN or infinity.
    OutputError, ResourceError
        If the file exists, cannot be written, or the disk is full.
    """
    target = Path(path)
    if not target.name.endswith(SUFFIXES):
        raise UsageError(target, "is not a NIfTI name", "end it in .nii.gz or .nii")
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise NumericalError(target, f"{bad} voxels are NaN or infinite", "report this as a bug")
    content = _encode(_storable(array), affine, space_code)
    if target.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=2, mtime=0)
    write_bytes(target, content, overwrite)


def _check_exists(file: Path) -> None:
    try:
        is_folder, is_there = file.is_dir(), file.exists()
        beside = [] if is_there else _names_beside(file)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnreadableError(file, f"cannot be reached: {reason}", "check the path") from error
    if is_folder:
        raise UnreadableError(file, "is a folder", "name a .nii or .nii.gz file in it")
    if is_there:
        return
    near = difflib.get_close_matches(file.name, beside, n=3)
    fix = f"did you mean {' or '.join(near)}?" if near else "check the path"
    raise UnreadableError(file, "does not exist", fix)


def _names_beside(file: Path) -> list[str]:
    # a folder that may be searched, but not read, lists nothing
    readable = file.parent.is_dir() and os.access(file.parent, os.R_OK)
    return [p.name for p in file.parent.iterdir() if p.is_file()] if readable else []


def _arrange(file: Path, image: nib.Nifti1Image, ndim: int) -> Array:
    """Scaled data with ``ndim`` axes, echoes first, at least 8 voxels along x, y, z."""
    shape = image.shape[:3] + tuple(n for n in image.shape[3:] if n > 1)
    if len(shape) < 3 or min(shape[:3]) < _LEAST_EDGE:
        problem = (
            f"shape {image.shape} is too thin: a dipole field needs {_LEAST_EDGE} voxels an axis"
        )
        raise InconsistentError(file, problem, "give the whole 3-D acquisition")
    if len(shape) > ndim:
        raise InconsistentError(
            file, f"shape {image.shape} where {ndim}-D is expected", _axes_hint(ndim)
        )
    with np.errstate(over="ignore", invalid="ignore"):  # callers look for infinity where it matters
        data = np.asarray(image.dataobj).astype(np.float32).reshape(shape)
    if ndim == 4:
        data = np.moveaxis(data, 3, 0) if data.ndim == 4 else data[None]
    return np.ascontiguousarray(data)


def _axes_hint(ndim: int) -> str:
    if ndim == 3:
        return "split off one volume; several echoes only fit --phase and --magnitude"
    return "store the echoes, and nothing else, along the fourth axis"


def _affine_in_use(file: Path, header: nib.Nifti1Header) -> tuple[npt.NDArray[np.float64], int]:
    """Sform if it has a code, else qform, else nibabel's guess with code 0.

    Voxel sizes are those of the affine: with a disagreeing qform, ``header.get_zooms()`` is not.
    """
    s_code, q_code = int(header["sform_code"]), int(header["qform_code"])
    sform, qform = header.get_sform(), _qform(file, header) if q_code else None
    if s_code and not np.isfinite(sform).all():
        fix = "repair the header, or convert the DICOM files again"
        raise PhysicsError(file, "its sform holds NaN or infinity", fix)
    if s_code and qform is not None:
        _check_agree(file, sform, qform)
    code = s_code or q_code
    if code not in _SCANNER_CODES:
        # no warning: who needs the direction of B0 asks for it
        why = "an atlas space" if code else "no orientation (qform and sform codes are 0)"
        log.debug("%s has %s: the direction of B0 is not known from it", file.name, why)
    uncoded = header.get_base_affine() if qform is None else qform
    affine = sform if s_code else uncoded
    return np.asarray(affine, dtype=np.float64), code


def _qform(file: Path, header: nib.Nifti1Header) -> Array:
    fix = "repair the header, or convert the DICOM files again"
    try:
        qform = np.asarray(header.get_qform())
    except ValueError as error:
        raise PhysicsError(file, f"qform is not a rotation ({error})", fix) from error
    if not np.isfinite(qform).all():
        raise PhysicsError(file, "its qform holds NaN or infinity", fix)
    return qform


def _check_agree(file: Path, sform: Array, qform: Array) -> None:
    """Refuse axes that differ by over 1 % of a voxel edge: about 0.6 degrees, or 1 % in size."""
    edges = np.linalg.norm(qform[:3, :3], axis=0)
    difference = np.abs(sform[:3, :3] - qform[:3, :3]) / edges
    if not difference.max() <= 0.01:
        sizes = " and ".join(
            "x".join(f"{edge:.4g}" for edge in np.linalg.norm(form[:3, :3], axis=0))
            for form in (sform, qform)
        )
        problem = (
            f"sform and qform disagree (voxels {sizes} mm, axes differ by {difference.max():.2g})"
        )
        fix = "keep the right one: nibabel's img.set_qform(img.affine) makes both the sform"
        raise PhysicsError(file, problem, fix)


def _check_same_shape(reference: Volume, other: Volume) -> None:
    if other.shape == reference.shape:
        return
    off = [abs(a - b) for a, b in zip(other.shape, reference.shape, strict=True)]
    hint = "a slice may be missing: convert the DICOM files again"
    fix = hint if sum(off) <= 2 else "give files of one grid, or resample"
    problem = f"shape {other.shape} differs from {reference.shape} of {reference.path.name}"
    raise InconsistentError(other.path, problem, fix)


def _displacement(reference: Volume, other: Volume) -> float:
    """Largest distance between the two positions of a grid corner, in smallest voxel edges."""
    x, y, z = (np.array((0.0, n - 1.0)) for n in reference.shape)
    corners = np.stack([*map(np.ravel, np.meshgrid(x, y, z)), np.ones(8)])
    shift = (other.affine - reference.affine) @ corners
    return float(np.linalg.norm(shift, axis=0).max() / min(reference.geometry.voxel_size))


def _storable(array: Array) -> Array:
    if array.ndim == 4:
        array = np.moveaxis(array, 0, 3)
    if array.dtype.kind in "bui":
        least, most = int(array.min(initial=0)), int(array.max(initial=0))
        fits = (
            t
            for t in (np.uint8, np.int16, np.int32)
            if np.iinfo(t).min <= least <= most <= np.iinfo(t).max
        )
        return array.astype(next(fits))
    return array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)


def _encode(array: Array, affine: npt.NDArray[np.float64], space_code: int) -> bytes:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, space_code)
    image.set_qform(affine, space_code)
    stream = io.BytesIO()
    image.to_stream(stream)
    return stream.getvalue()
