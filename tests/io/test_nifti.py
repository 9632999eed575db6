"""Every row of the fault table that a file alone can trigger, and what good files give."""

import gzip
import logging
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsmnet.errors import (
    InconsistentError,
    NumericalError,
    OutputError,
    PhysicsError,
    ResourceError,
    UnreadableError,
    UsageError,
)
from qsmnet.io.nifti import check_same_grid, read_mask, read_volume, write_volume

SHAPE = (8, 9, 11)


def patch_header(path: Path, offset: int, content: bytes) -> None:
    """Overwrite bytes of the header, in a plain or a compressed file."""
    zipped = path.name.endswith(".gz")
    raw = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(raw)) if zipped else bytes(raw))


DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE = 40, 70, 76, 108, 112


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


# --- wrong shape: exit 4 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((16, 16), "too thin"),
        ((16, 16, 1), "too thin"),
        ((16, 16, 7), "too thin"),
        ((5, 16, 16), "too thin"),
        ((8, 8, 8, 3), "3-D is expected"),
        ((8, 8, 8, 1, 3), "3-D is expected"),
    ],
)
def test_wrong_number_of_axes(write_nifti, shape, words):
    path = write_nifti(data=np.ones(shape, np.float32))
    with pytest.raises(InconsistentError, match=words) as caught:
        read_volume(path)
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)


def test_five_dimensions_are_not_echoes(write_nifti):
    path = write_nifti(data=np.ones((8, 8, 8, 2, 3), np.float32))
    with pytest.raises(InconsistentError, match="4-D is expected"):
        read_volume(path, ndim=4)


def test_colours_are_refused(write_nifti):
    path = write_nifti(data=np.zeros(SHAPE, np.dtype([(c, "u1") for c in "RGB"])))
    with pytest.raises(InconsistentError, match="grey-scale"):
        read_volume(path)


def test_a_single_fourth_axis_is_dropped(write_nifti):
    assert read_volume(write_nifti(data=np.ones((8, 8, 8, 1), np.float32))).data.shape == (8, 8, 8)


def test_echoes_come_first(write_nifti):
    data = np.random.default_rng(0).normal(size=(*SHAPE, 3)).astype(np.float32)
    volume = read_volume(write_nifti(data=data), ndim=4)
    np.testing.assert_array_equal(volume.data, np.moveaxis(data, 3, 0))
    assert volume.shape == SHAPE
    assert read_volume(write_nifti("one.nii"), ndim=4).data.shape == (1, *SHAPE)


# --- wrong physics: exit 5 ------------------------------------------------------------------------


def pixdim(*sizes):
    def edit(path):
        patch_header(path, PIXDIM + 4, struct.pack("<3f", *sizes))

    return edit


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan"))])
def test_voxel_sizes_that_nibabel_repairs_in_silence(write_nifti, sizes):
    path = write_nifti()
    pixdim(*sizes)(path)
    with pytest.raises(PhysicsError, match="voxel sizes"):
        read_volume(path)


@pytest.mark.parametrize("edge", [0.001, 0.04, 11.0, 300.0])
def test_implausible_voxel_sizes(write_nifti, edge):
    path = write_nifti(matrix=np.diag([1.0, 1.0, edge, 1.0]))
    with pytest.raises(PhysicsError, match=r"0\.05 to 10"):
        read_volume(path)


def test_lengths_in_micrometres(write_nifti):
    path = write_nifti(edit=lambda image: image.header.set_xyzt_units("micron"))
    with pytest.raises(PhysicsError, match="micron"):
        read_volume(path)


def with_qform(matrix):
    return lambda image: image.set_qform(matrix, 1)


@pytest.mark.parametrize(
    "other",
    [
        np.diag([1.0, 1.0, 2.0, 1.0]),
        np.diag([1.0, 1.0, 1.02, 1.0]),
        np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        np.array([[1, 0, 0, 0], [0, 0.99, -0.141, 0], [0, 0.141, 0.99, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["double", "two-percent", "swapped", "eight-degrees"],
)
def test_qform_and_sform_disagree(write_nifti, other):
    path = write_nifti(matrix=np.eye(4), edit=with_qform(other))
    with pytest.raises(PhysicsError, match="disagree") as caught:
        read_volume(path)
    assert caught.value.exit_code == 5


def test_rounded_qform_is_accepted(write_nifti):
    other = np.diag([1.0, 1.0, 1.002, 1.0])
    other[:3, 3] = 3.0  # only an origin: no matter for the dipole
    volume = read_volume(write_nifti(matrix=np.eye(4), edit=with_qform(other)))
    assert volume.geometry.voxel_size == (1.0, 1.0, 1.0)  # the sform's


def test_impossible_quaternion(write_nifti):
    path = write_nifti()
    patch_header(path, 256, struct.pack("<3f", 3.0, 3.0, 3.0))
    with pytest.raises(PhysicsError, match="rotation"):
        read_volume(path)


def no_codes(image):
    image.set_sform(None, 0)
    image.set_qform(None, 0)


def test_no_orientation_is_said_and_marked(write_nifti, caplog):
    with caplog.at_level(logging.WARNING, "qsmnet"):
        volume = read_volume(write_nifti(edit=no_codes))
    assert not volume.b0_known
    assert "direction of B0" in caplog.text


def test_atlas_space_has_no_known_b0(write_nifti, caplog):
    def atlas(image):
        image.set_qform(None, 0)
        image.set_sform(image.affine, 4)

    assert not read_volume(write_nifti(edit=atlas)).b0_known
    assert "atlas" in caplog.text


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["singular", "sheared"],
)
def test_affines_that_are_no_grid(write_nifti, matrix):
    path = write_nifti()  # nibabel refuses to write such an affine: put it in place by hand
    patch_header(path, 252, struct.pack("<2h", 0, 1))
    patch_header(path, 280, struct.pack("<12f", *matrix[:3].ravel()))
    with pytest.raises(PhysicsError, match=r"singular|right angles"):
        read_volume(path)


# --- good files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["volume.nii", "volume.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_reads_what_nibabel_reads(write_nifti, affine, name, kind):
    path = write_nifti(name, kind=kind)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, nib.load(path).get_fdata(dtype=np.float32))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    assert volume.geometry.voxel_size == pytest.approx((0.9, 1.1, 1.6))
    assert volume.geometry.tilt_degrees == pytest.approx(20.0, abs=1e-3)
    assert volume.b0_known
    assert volume.tensor().dtype == torch.float32


def test_big_endian(write_nifti, affine, tmp_path):
    data = np.random.default_rng(0).normal(size=SHAPE).astype(">f4")
    image = nib.Nifti1Image(data, affine, nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "big.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "big.nii").data, data)


def test_slope_and_intercept_are_applied(write_nifti):
    stored = (np.arange(8 * 9 * 11) % 4096).astype(np.int16).reshape(SHAPE)

    path = write_nifti("phase.nii", data=stored)
    patch_header(path, SLOPE, struct.pack("<2f", 2.0, -4096.0))
    np.testing.assert_array_equal(read_volume(path).data, 2.0 * stored - 4096.0)


def test_complex_is_kept(write_nifti):
    rng = np.random.default_rng(0)
    data = (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype(np.complex64)
    volume = read_volume(write_nifti(data=data))
    assert volume.data.dtype == np.complex64
    np.testing.assert_array_equal(volume.data, data)


def test_nan_is_left_to_the_caller(write_nifti):
    data = np.ones(SHAPE, np.float32)
    data[0, 0, 0] = np.nan
    assert np.isnan(read_volume(write_nifti(data=data)).data[0, 0, 0])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_permuted_and_flipped_grids_keep_the_geometry(write_nifti, affine, axes, flips):
    path = write_nifti(matrix=affine)
    turned = nib.load(path)
    orientation = np.array([[a, -1 if f else 1] for a, f in zip(axes, flips, strict=True)])
    turned = turned.as_reoriented(orientation)
    turned.set_qform(turned.affine, 1)
    nib.save(turned, path.with_name("turned.nii.gz"))
    geometry, other = (
        read_volume(path).geometry,
        read_volume(path.with_name("turned.nii.gz")).geometry,
    )
    assert [other.voxel_size[a] for a in axes] == pytest.approx(geometry.voxel_size, rel=1e-5)
    assert [abs(other.b0_dir[a]) for a in axes] == pytest.approx(
        [abs(c) for c in geometry.b0_dir], abs=1e-5
    )


# --- masks and grids ------------------------------------------------------------------------------


def test_mask(write_nifti, caplog):
    data = np.zeros(SHAPE, np.uint8)
    data[2:5] = 1
    mask = read_mask(write_nifti(data=data))
    assert mask.data.dtype == np.bool_
    assert mask.tensor().sum() == 3 * 9 * 11
    assert not caplog.text


def test_soft_mask_is_cut_at_a_half_and_said(write_nifti, caplog):
    data = np.zeros(SHAPE, np.float32)
    data[2:5], data[5:7] = 0.99, 0.4
    assert read_mask(write_nifti(data=data)).data.sum() == 3 * 9 * 11
    assert "not binary" in caplog.text


def test_empty_mask(write_nifti):
    with pytest.raises(InconsistentError, match="empty"):
        read_mask(write_nifti(data=np.zeros(SHAPE, np.uint8)))


def test_same_grid_accepts_rounding(write_nifti, affine, caplog):
    other = affine + 1e-4
    other[3] = (0, 0, 0, 1)
    with caplog.at_level(logging.INFO, "qsmnet"):
        check_same_grid(read_volume(write_nifti()), read_volume(write_nifti("b.nii", matrix=other)))
    assert "affine differs" in caplog.text


def test_same_grid_refuses_a_shift(write_nifti, affine):
    other = affine.copy()
    other[0, 3] += 0.5
    field, mask = read_volume(write_nifti()), read_volume(write_nifti("mask.nii", matrix=other))
    with pytest.raises(InconsistentError, match="voxels away") as caught:
        check_same_grid(field, mask)
    assert "mask.nii" in str(caught.value)


@pytest.mark.parametrize(("slices", "words"), [(10, "slice may be missing"), (20, "one grid")])
def test_same_grid_refuses_other_shapes(write_nifti, slices, words):
    other = write_nifti("b.nii", data=np.ones((8, 9, slices), np.float32))
    with pytest.raises(InconsistentError, match=words):
        check_same_grid(read_volume(write_nifti()), read_volume(other))


def test_echoes_and_a_mask_share_a_grid(write_nifti):
    echoes = write_nifti("e.nii", data=np.ones((*SHAPE, 2), np.float32))
    check_same_grid(read_volume(echoes, ndim=4), read_volume(write_nifti()))


# --- writing --------------------------------------------------------------------------------------


def test_round_trip_is_exact(tmp_path, affine):
    data = torch.randn(SHAPE)
    write_volume(tmp_path / "chi.nii.gz", data, affine)
    back = read_volume(tmp_path / "chi.nii.gz")
    assert torch.equal(back.tensor(), data)
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    header = nib.load(tmp_path / "chi.nii.gz").header
    assert header.get_data_dtype() == np.float32
    assert header.get_slope_inter() in ((None, None), (1.0, 0.0))


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (np.ones(SHAPE, bool), np.uint8),
        (np.full(SHAPE, 255, np.int64), np.uint8),
        (np.full(SHAPE, 2035, np.int64), np.int16),
        (np.full(SHAPE, -1, np.int64), np.int16),
        (np.full(SHAPE, 70_000, np.int64), np.int32),
        (np.full(SHAPE, 0.1, np.float64), np.float32),
        (np.full(SHAPE, 1j, np.complex128), np.complex64),
    ],
)
def test_stored_types(tmp_path, affine, data, stored):
    write_volume(tmp_path / "a.nii", data, affine)
    image = nib.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == stored
    np.testing.assert_allclose(np.asarray(image.dataobj), data, rtol=1e-6)


def test_echoes_are_stored_last(tmp_path, affine):
    data = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    write_volume(tmp_path / "a.nii", data, affine)
    assert nib.load(tmp_path / "a.nii").shape == (*SHAPE, 3)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii", ndim=4).data, data)


def test_equal_data_give_equal_bytes(tmp_path, affine):
    data = torch.randn(SHAPE)
    write_volume(tmp_path / "a.nii.gz", data, affine)
    write_volume(tmp_path / "b.nii.gz", data, affine)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_unknown_orientation_stays_unknown(write_nifti, tmp_path):
    volume = read_volume(write_nifti(edit=no_codes))
    write_volume(tmp_path / "b.nii", volume.data, volume.affine, space_code=volume.space_code)
    back = read_volume(tmp_path / "b.nii")
    assert not back.b0_known
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)


def test_nothing_of_the_patient_is_carried_over(write_nifti, tmp_path):
    def name_the_patient(image):
        image.header["descrip"] = b"JOHN DOE 19500101"
        image.header["aux_file"] = b"JOHN DOE"
        image.header["intent_name"] = b"JOHN DOE"
        image.header["db_name"] = b"JOHN DOE"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"JOHN DOE"))

    path = write_nifti("in.nii", edit=name_the_patient)
    assert b"JOHN DOE" in path.read_bytes()
    volume = read_volume(path)
    write_volume(tmp_path / "out.nii", volume.data, volume.affine)
    assert b"JOHN" not in (tmp_path / "out.nii").read_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_never_written(tmp_path, affine, bad):
    data = np.zeros(SHAPE, np.float32)
    data[1, 2, 3] = bad
    with pytest.raises(NumericalError, match="1 voxels"):
        write_volume(tmp_path / "a.nii", data, affine)
    assert not list(tmp_path.iterdir())


def test_names_and_overwriting(tmp_path, affine):
    data = np.zeros(SHAPE, np.float32)
    with pytest.raises(UsageError, match="NIfTI name"):
        write_volume(tmp_path / "a.mgz", data, affine)
    write_volume(tmp_path / "a.nii", data, affine)
    with pytest.raises(OutputError, match="--overwrite"):
        write_volume(tmp_path / "a.nii", data + 1, affine)
    write_volume(tmp_path / "a.nii", data + 1, affine, overwrite=True)
    assert (read_volume(tmp_path / "a.nii").data == 1).all()


def test_real_scans(outside_data):
    patch = outside_data / "gre_patch_7t"
    phase = read_volume(patch / "phase.nii.gz", ndim=4)
    check_same_grid(phase, read_volume(patch / "magnitude.nii.gz", ndim=4))
    assert phase.data.shape == (3, 51, 51, 41)
    assert phase.geometry.b0_dir == (0.0, 0.0, 1.0)
