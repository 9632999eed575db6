"""Masks, grids that must agree, and what is written."""

import logging

import nibabel as nib
import numpy as np
import pytest
import torch

from qsmnet.errors import (
    InconsistentError,
    NumericalError,
    OutputError,
    UsageError,
)
from qsmnet.io.nifti import check_same_grid, read_mask, read_volume, write_volume

SHAPE = (8, 9, 11)


def no_codes(image):
    image.set_sform(None, 0)
    image.set_qform(None, 0)


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
