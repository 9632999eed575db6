"""From a file on disk to a NIfTI image in memory; nothing in a header is trusted unchecked."""

import contextlib
import gzip
import io
import logging
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from qsmnet.errors import InconsistentError, PhysicsError, ResourceError, UnreadableError

SUFFIXES = (".nii.gz", ".nii")

_COPY = "copy or convert it again"
_GZIP_MAGIC = b"\x1f\x8b"
# deflate cannot do better: a header that claims more than this is wrong before anything is unpacked
_BEST_GZIP_RATIO = 1032
# voxels in all: a 1024^3 head, or 64 echoes of 256^3; beyond, the header is taken for damaged
_MOST_VOXELS = 1024**3
# bytes allowed after the last voxel: some writers pad, a bomb goes on for gigabytes
_SLACK = 64 * 1024
_LARGEST_HEADER = 540


def read_image(file: Path) -> nib.Nifti1Image:
    """Whole file in memory: size, gzip CRC, header dimensions and data type checked.

    Raises
    ------
    UnreadableError
        If it is empty, truncated, corrupt, or not NIfTI.
    ResourceError
        If the data do not fit in the memory that is free.
    InconsistentError, PhysicsError
        If the voxels are colours, or the header's voxel sizes are not positive numbers.
    """
    size = _checked_size(file)
    try:
        with file.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if _is_gzip(file, raw) else raw
            return _parse(file, stream, size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableError(file, f"is truncated or corrupt ({error})", _COPY) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableError(
            file, f"cannot be read: {reason}", "check the file and disk"
        ) from error


def _checked_size(file: Path) -> int:
    if not file.name.endswith(SUFFIXES):
        fix = "give .nii or .nii.gz (dcm2niix converts DICOM)"
        raise UnreadableError(file, "is not named as a NIfTI file", fix)
    if not file.is_file():
        raise UnreadableError(file, "is not a regular file", "name a .nii or .nii.gz file")
    size = file.stat().st_size
    if size == 0:
        raise UnreadableError(file, "is empty (0 bytes)", _COPY)
    return size


def _is_gzip(file: Path, raw: io.BufferedIOBase) -> bool:
    zipped = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    if zipped and not file.name.endswith(".gz"):
        raise UnreadableError(file, "is compressed but not named so", f"rename to {file.name}.gz")
    if not zipped and file.name.endswith(".gz"):
        plain = file.name.removesuffix(".gz")
        raise UnreadableError(file, "is not gzip", f"rename to {plain} if it is plain NIfTI")
    return zipped


def _parse(file: Path, stream: io.BufferedIOBase, size: int) -> nib.Nifti1Image:
    start = stream.read(_LARGEST_HEADER)
    header = _header(file, start)
    expected = _expected_bytes(file, header)
    zipped = isinstance(stream, gzip.GzipFile)
    if expected > size * (_BEST_GZIP_RATIO if zipped else 1) + _LARGEST_HEADER:
        problem = f"is truncated: {size} bytes cannot hold the {expected} its header announces"
        raise UnreadableError(file, problem, _COPY)
    _check_memory(file, expected)
    content = bytearray(start)
    _drain(stream, content, expected + _SLACK + 1)
    if len(content) < expected:
        problem = f"is truncated: {len(content)} bytes of the {expected} its header announces"
        raise UnreadableError(file, problem, _COPY)
    if len(content) > expected + _SLACK:
        raise UnreadableError(file, f"goes on beyond the {expected} bytes of its header", _COPY)
    return _image(file, header, content)


def _image(file: Path, header: nib.Nifti1Header, content: bytearray) -> nib.Nifti1Image:
    # extensions (comments, DICOM headers with names in them) are not wanted, and may be malformed
    content[header.sizeof_hdr : header.sizeof_hdr + 4] = bytes(4)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    try:
        with _quiet_nibabel():
            return kind.from_stream(io.BytesIO(content))
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise UnreadableError(file, f"has a damaged header ({error})", _COPY) from error


@contextlib.contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel from printing what it dislikes in a header: what matters is checked here."""
    logger = nib.imageglobals.logger
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _drain(stream: io.BufferedIOBase, content: bytearray, most: int) -> None:
    """Read on to ``most`` bytes or the end, which is where gzip checks its CRC."""
    while len(content) < most and (part := stream.read(min(most - len(content), 1 << 24))):
        content += part


def _header(file: Path, start: bytes) -> nib.Nifti1Header:
    """Header whose dimensions, data type and voxel sizes have been checked."""
    magic = start[344:347]
    if magic == b"ni1":
        raise UnreadableError(
            file, "holds only a header (.hdr/.img pair)", "convert to one .nii file"
        )
    second = start[4:7] == b"n+2"
    if not second and magic != b"n+1":
        raise UnreadableError(file, "is not NIfTI, or its header is damaged", _COPY)
    kind: type[nib.Nifti1Header] = nib.Nifti2Header if second else nib.Nifti1Header
    if len(start) < kind.sizeof_hdr:
        raise UnreadableError(file, f"is truncated: {len(start)} bytes, less than a header", _COPY)
    # check=False: nibabel would repair bad voxel sizes to 1 mm in silence: a wrong dipole kernel
    header: nib.Nifti1Header = kind(start[: kind.sizeof_hdr], check=False)
    _check_dimensions(file, header)
    _check_data_type(file, header)
    _check_voxel_sizes(file, header)
    _check_codes(file, header)
    return header


def _check_dimensions(file: Path, header: nib.Nifti1Header) -> None:
    count, *sizes = (int(n) for n in header["dim"])
    if not 1 <= count <= 7 or min(sizes[:count]) < 1:
        problem = f"header announces impossible dimensions {sizes[: max(count, 0)]}"
        raise UnreadableError(file, problem, _COPY)
    voxels = math.prod(sizes[:count])
    if voxels > _MOST_VOXELS:
        problem = f"header announces {voxels} voxels, over the limit of {_MOST_VOXELS}"
        raise UnreadableError(file, problem, "crop it if it is real; else " + _COPY)


def _check_data_type(file: Path, header: nib.Nifti1Header) -> None:
    try:
        dtype = header.get_data_dtype()
    except (nib.spatialimages.HeaderDataError, KeyError) as error:
        raise UnreadableError(file, "header has an unknown data type", _COPY) from error
    if dtype.kind == "c":
        raise InconsistentError(file, "is complex", "split it into a phase and a magnitude file")
    if dtype.kind not in "iuf":
        raise InconsistentError(file, f"voxels are {dtype}, not numbers", "give a grey-scale image")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope != 0 and math.isfinite(slope) and not math.isfinite(intercept):
        raise UnreadableError(file, f"header has the scale offset {intercept}", _COPY)


def _check_voxel_sizes(file: Path, header: nib.Nifti1Header) -> None:
    sizes = header["pixdim"][1 : 1 + min(3, int(header["dim"][0]))]
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        problem = f"header has voxel sizes {[float(s) for s in sizes]} mm"
        raise PhysicsError(file, problem, "repair pixdim, or convert the DICOM files again")
    if header.get_xyzt_units()[0] not in ("mm", "unknown"):
        problem = f"header gives lengths in {header.get_xyzt_units()[0]}"
        raise PhysicsError(file, problem, "rewrite affine and units in mm")


def _check_codes(file: Path, header: nib.Nifti1Header) -> None:
    for name in ("qform_code", "sform_code"):
        if int(header[name]) not in nib.nifti1.xform_codes:
            problem = f"header has the {name} {int(header[name])}, which does not exist"
            raise PhysicsError(file, problem, "repair the header, or convert the DICOM files again")


def _expected_bytes(file: Path, header: nib.Nifti1Header) -> int:
    offset = float(header["vox_offset"])
    least = header.sizeof_hdr + 4
    if not least <= offset < 2**31:  # NaN fails too
        raise UnreadableError(file, f"header puts the voxels at byte {offset}", _COPY)
    shape = (int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
    return int(offset) + math.prod(shape) * int(header.get_data_dtype().itemsize)


def _check_memory(file: Path, expected: int) -> None:
    # the bytes, the scaled data, and one copy between them
    needed, free = 3 * expected, psutil.virtual_memory().available
    if needed > free:
        problem = f"needs {needed / 2**30:.1f} GiB to read, {free / 2**30:.1f} are free"
        raise ResourceError(file, problem, "close other programs, or crop the image")
