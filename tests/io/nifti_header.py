"""Break a NIfTI file at a known byte of its header."""

import gzip
from pathlib import Path

#: Byte offsets in the NIfTI-1 header.
DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE = 40, 70, 76, 108, 112
QFORM_CODE, SFORM_CODE, QUATERNION, SROW = 252, 254, 256, 280


def patch_header(path: Path, offset: int, content: bytes) -> None:
    """Overwrite bytes of the header, in a plain or a compressed file."""
    zipped = path.name.endswith(".gz")
    raw = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(raw)) if zipped else bytes(raw))
