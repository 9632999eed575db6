"""A pair on disk: ``local_field``, ``mask`` and ``chi`` as NIfTI, and what may lie beside them."""

from pathlib import Path

import torch
from torch import Tensor

from qsmnet.errors import InconsistentError, PhysicsError, UnreadableError
from qsmnet.io.nifti import Volume, check_same_grid, read_mask, read_volume
from qsmnet.mask.finite import finite_in_mask
from qsmnet.training.batch import Item

_NEEDED = ("chi", "local_field", "mask")


def find_pairs(folder: Path) -> list[Path]:
    """Folders in ``folder`` that hold a pair, sorted.

    Raises
    ------
    UnreadableError
        If there is none, or one lacks a file.
    """
    pairs = sorted({path.parent for path in folder.glob("*/chi.nii*")})
    if not pairs:
        fix = "give a folder of folders with chi.nii.gz, local_field.nii.gz and mask.nii.gz"
        raise UnreadableError(folder, "holds no folders with local_field, mask and chi", fix)
    for pair in pairs:
        for name in _NEEDED:
            if _find(pair, name) is None:
                raise UnreadableError(pair, f"lacks {name}.nii.gz", "add it, or remove the folder")
    return pairs


def read_pair(folder: Path, index: int, magnitude: bool = False) -> Item:
    """Read a pair as item ``index``.

    NaN and infinity are zero where they do not matter: susceptibility and noise outside the mask,
    the field where it is not known. With ``magnitude`` its file is read, too, where there is one.

    Raises
    ------
    NumericalError
        If one is where it does matter.
    InconsistentError
        If the grids differ, the mask is empty, or a field support is not from 0 to 1.
    PhysicsError
        If a noise map or a magnitude is negative.
    UnreadableError
        If a file cannot be read.
    """
    chi = _read(folder, "chi")
    mask = read_mask(_path(folder, "mask"))
    check_same_grid(chi, mask)
    inside = mask.tensor()
    field = _read(folder, "local_field", chi)
    support = _support(folder, chi, inside)
    return Item(
        field=finite_in_mask(field.tensor(), support > 0, field.path) * support,
        support=support,
        noise=_noise(folder, chi, inside),
        chi=finite_in_mask(chi.tensor(), inside, chi.path) * inside,
        mask=inside,
        geometry=chi.geometry,
        index=index,
        magnitude=_magnitude(folder, chi, inside) if magnitude else None,
    )


def _support(folder: Path, reference: Volume, mask: Tensor) -> Tensor:
    if _find(folder, "field_support") is None:
        return mask.float()
    volume = _read(folder, "field_support", reference)
    support = volume.tensor()
    if not bool(((support >= 0) & (support <= 1)).all()):
        fix = "write 0 where nothing is known"
        raise InconsistentError(volume.path, "a field support lies in [0, 1]", fix)
    return support


def _noise(folder: Path, reference: Volume, mask: Tensor) -> Tensor:
    if _find(folder, "noise") is None:
        return torch.zeros(reference.shape)
    problem = "a standard deviation is not negative"
    return _not_negative(folder, "noise", reference, mask, problem, "give a map in ppm")


def _magnitude(folder: Path, reference: Volume, mask: Tensor) -> Tensor | None:
    if _find(folder, "magnitude") is None:
        return None
    problem = "a magnitude is not negative"
    return _not_negative(folder, "magnitude", reference, mask, problem, "check that it is no phase")


def _not_negative(
    folder: Path, name: str, reference: Volume, mask: Tensor, problem: str, fix: str
) -> Tensor:
    volume = _read(folder, name, reference)
    values = finite_in_mask(volume.tensor(), mask, volume.path)
    if bool((values < 0).any()):
        raise PhysicsError(volume.path, problem, fix)
    return values


def _read(folder: Path, name: str, reference: Volume | None = None) -> Volume:
    volume = read_volume(_path(folder, name))
    if reference is not None:
        check_same_grid(reference, volume)
    return volume


def _path(folder: Path, name: str) -> Path:
    return _find(folder, name) or folder / f"{name}.nii.gz"


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.nii.gz", folder / f"{name}.nii")
    return next((path for path in paths if path.exists()), None)
