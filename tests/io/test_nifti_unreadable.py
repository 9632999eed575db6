"""Files that cannot be read: every way of being broken is one error, and a flipped bit shows."""

import gzip
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
from nifti_header import DATATYPE, DIM, SLOPE, VOX_OFFSET, patch_header

from qsmnet.errors import (
    ResourceError,
    UnreadableError,
)
from qsmnet.io.nifti import read_volume

SHAPE = (8, 9, 11)

# --- files that cannot be read: exit 3 -----------------------------------------------------------


def missing(write):
    return write("phase.nii.gz").with_name("phaze.nii.gz")


def folder(write):
    return write().parent


def empty(write):
    path = write()
    path.write_bytes(b"")
    return path


def half(write):
    path = write()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def half_plain(write):
    path = write("volume.nii")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def twenty_bytes(write):
    path = write()
    path.write_bytes(path.read_bytes()[:20])
    return path


def short_header(write):
    path = write("volume.nii")
    path.write_bytes(path.read_bytes()[:347])
    return path


def not_gzip(write):
    path = write("volume.nii")
    return path.rename(path.with_name("volume.nii.gz"))


def hidden_gzip(write):
    path = write()
    return path.rename(path.with_name("other.nii"))


def other_format(write):
    path = write("volume.nii")
    return path.rename(path.with_name("volume.dcm"))


def text(write):
    path = write("volume.nii")
    path.write_text("subject,te\n" * 100)
    return path


def header_only(write):
    path = write("volume.nii")
    patch_header(path, 344, b"ni1\0")
    return path


def bad_crc(write):
    path = write()
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the stored CRC itself
    path.write_bytes(content)
    return path


def tail_cut(write):
    path = write()
    path.write_bytes(path.read_bytes()[:-8])  # all voxels are there, CRC and length are not
    return path


def negative_dimension(write):
    path = write()
    patch_header(path, DIM, struct.pack("<4h", 3, 8, -9, 11))
    return path


def eight_dimensions(write):
    path = write()
    patch_header(path, DIM, struct.pack("<h", 0))
    return path


def huge_dimensions(write):
    path = write()
    patch_header(path, DIM, struct.pack("<4h", 3, 32767, 32767, 32767))
    return path


def more_than_the_file(write):
    path = write("volume.nii")
    patch_header(path, DIM, struct.pack("<4h", 3, 500, 500, 500))
    return path


def more_than_gzip_can(write):
    path = write()
    patch_header(path, DIM, struct.pack("<4h", 3, 900, 900, 900))
    return path


def bomb(write):
    path = write()
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw + bytes(2**24)))
    return path


def unknown_type(write):
    path = write()
    patch_header(path, DATATYPE, struct.pack("<h", 3))
    return path


def offset_nan(write):
    path = write()
    patch_header(path, VOX_OFFSET, struct.pack("<f", float("nan")))
    return path


def offset_zero(write):
    path = write("volume.nii")  # nibabel would take the header for voxels
    patch_header(path, VOX_OFFSET, struct.pack("<f", 0.0))
    return path


def offset_inside_header(write):
    path = write()
    patch_header(path, VOX_OFFSET, struct.pack("<f", 100.0))
    return path


def scale_offset_infinite(write):
    path = write()
    patch_header(path, SLOPE, struct.pack("<2f", 2.0, float("inf")))
    return path


UNREADABLE = [
    (missing, "phase.nii.gz"),
    (folder, "folder"),
    (empty, "0 bytes"),
    (half, "truncated"),
    (half_plain, "truncated"),
    (twenty_bytes, "truncated"),
    (short_header, "truncated"),
    (not_gzip, "rename to volume.nii"),
    (hidden_gzip, "rename to other.nii.gz"),
    (other_format, "dcm2niix"),
    (text, "not NIfTI"),
    (header_only, "pair"),
    (bad_crc, "CRC"),
    (tail_cut, "truncated"),
    (negative_dimension, "impossible dimensions"),
    (eight_dimensions, "impossible dimensions"),
    (huge_dimensions, "over the limit"),
    (more_than_the_file, "truncated"),
    (more_than_gzip_can, "truncated"),
    (bomb, "goes on"),
    (unknown_type, "data type"),
    (offset_nan, "byte nan"),
    (offset_zero, "byte 0"),
    (offset_inside_header, "byte 100"),
    (scale_offset_infinite, "offset"),
]


@pytest.mark.parametrize(("fault", "words"), UNREADABLE, ids=[f.__name__ for f, _ in UNREADABLE])
def test_unreadable(write_nifti, fault, words):
    path = fault(write_nifti)
    with pytest.raises(UnreadableError, match=words) as caught:
        read_volume(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert caught.value.fix


def test_huge_header_is_refused_before_memory_is_taken(write_nifti, monkeypatch):
    path = write_nifti()
    patch_header(path, DIM, struct.pack("<4h", 3, 20, 20, 20))
    memory = type("Memory", (), {"available": 10_000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(ResourceError, match="GiB"):
        read_volume(path)


# --- one flipped bit ------------------------------------------------------------------------------


def test_a_flipped_bit_is_an_error_or_harmless(write_nifti):
    path = write_nifti(data=(np.arange(8 * 9 * 11) % 97).astype(np.int16).reshape(SHAPE))
    good, whole = read_volume(path).data, path.read_bytes()
    rng = np.random.default_rng(1)
    silent = 0
    for bit in rng.choice(8 * len(whole), size=300, replace=False):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(content)
        try:
            changed = not np.array_equal(read_volume(path).data, good)
        except UnreadableError:
            continue
        silent += changed
    assert silent == 0


def test_nibabel_alone_misses_the_flipped_bit(write_nifti):
    # the reason for draining; if nibabel ever checks the CRC itself, this says so
    path = write_nifti()
    raw = gzip.decompress(path.read_bytes())
    # a stored (uncompressed) block: any byte may change without upsetting the decompressor
    stored = zlib.compressobj(0, wbits=31)
    content = bytearray(stored.compress(raw) + stored.flush())
    content[1000] ^= 64
    path.write_bytes(content)
    assert not np.array_equal(nib.load(path).get_fdata(), read_bytes_as_float(raw))
    with pytest.raises(UnreadableError, match="CRC"):
        read_volume(path)


def read_bytes_as_float(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw[352:], np.float32).reshape(SHAPE, order="F")
