"""Files that are whole but not what they should be; and what good files give."""

import logging
import struct

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_header import (
    PIXDIM,
    QFORM_CODE,
    QUATERNION,
    SFORM_CODE,
    SLOPE,
    SROW,
    VOX_OFFSET,
    patch_header,
)

from qsmnet.errors import (
    InconsistentError,
    PhysicsError,
    UnreadableError,
)
from qsmnet.io.nifti import read_volume

SHAPE = (8, 9, 11)

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


def test_no_orientation_is_marked_and_left_to_the_caller(write_nifti, caplog):
    with caplog.at_level(logging.INFO, "qsmnet"):
        volume = read_volume(write_nifti(edit=no_codes))
    assert not volume.b0_known
    # a warning beside the caller's error would be a second line
    assert caplog.text == ""


def test_atlas_space_has_no_known_b0(write_nifti):
    def atlas(image):
        image.set_qform(None, 0)
        image.set_sform(image.affine, 4)

    assert not read_volume(write_nifti(edit=atlas)).b0_known


@pytest.mark.parametrize("offset", [QFORM_CODE, SFORM_CODE])
def test_unknown_orientation_code_is_refused_and_nibabel_is_quiet(write_nifti, capfd, offset):
    path = write_nifti()
    patch_header(path, offset, struct.pack("<h", 77))
    with pytest.raises(PhysicsError, match="code 77"):
        read_volume(path)
    assert capfd.readouterr().err == ""


def test_nibabel_prints_nothing_of_a_header_it_dislikes(write_nifti, capfd):
    # of any offset that is no multiple of 16
    path = write_nifti("odd.nii")
    raw = bytearray(path.read_bytes())
    raw[352:352] = bytes(4)
    path.write_bytes(bytes(raw))
    patch_header(path, VOX_OFFSET, struct.pack("<f", 356.0))
    read_volume(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("offset", "form"), [(SROW, "sform"), (QUATERNION, "qform")])
def test_affine_that_is_not_finite(write_nifti, offset, form):
    path = write_nifti(edit=lambda image: image.set_sform(None, 0) if form == "qform" else None)
    patch_header(path, offset, struct.pack("<f", float("nan")))
    with pytest.raises(PhysicsError, match=f"{form}.*nan|{form} holds NaN"):
        read_volume(path)


def test_path_that_the_system_refuses(tmp_path):
    # as a folder that may not be searched
    with pytest.raises(UnreadableError, match="cannot be reached"):
        read_volume(tmp_path / f"{'a' * 300}.nii.gz")


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


def test_complex_is_refused(write_nifti):
    rng = np.random.default_rng(0)
    data = (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype(np.complex64)
    with pytest.raises(InconsistentError, match="is complex"):
        read_volume(write_nifti(data=data))


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
