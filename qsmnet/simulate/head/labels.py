"""Heads from label maps: files, tables, and the share of every tissue at any point in space."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from qsmnet.errors import InconsistentError, UnreadableError, UsageError
from qsmnet.io.nifti import read_volume
from qsmnet.simulate.head.tissues import PARTS, TISSUES, tissue_of

Array = npt.NDArray[np.float64]
Volume = npt.NDArray[np.uint8]

#: What a brain extraction keeps, before fluid between its folds is closed in.
BRAIN_PARTS = frozenset(
    {"white matter", "grey matter", "brain stem", "ventral diencephalon", "thalamus", "caudate"}
    | {"putamen", "globus pallidus", "hippocampus", "amygdala", "accumbens", "lateral ventricle"}
    | {"third ventricle", "fourth ventricle", "cerebellar white matter", "cerebellar cortex"}
    | {"red nucleus", "substantia nigra", "dentate nucleus"}
)
#: What a brain extraction keeps where it lies between parts of the brain.
BETWEEN_PARTS = frozenset(
    {"extracerebral fluid", "cerebrospinal fluid", "artery", "nerve", "venous blood"}
)
_CLOSING = 8.0
# fat lies below the skin; deeper soft tissue is muscle
_FAT_DEPTH = 6.0
# standard deviation, in voxels of the map, that takes the steps off its surfaces
_SMOOTHING = 0.6
_MARGIN = 4
# the cut through the neck, not the tip of a chin, is where the section is this share of the largest
_CUT = 0.25


@dataclass(frozen=True)
class Share:
    """Smoothed indicator of a tissue in a box of the map; ``corner`` is the box's first voxel."""

    volume: Float[Tensor, "x y z"]
    corner: tuple[int, int, int]


@dataclass(frozen=True)
class HeadMap:
    """A label map, ready to be painted.

    Parameters
    ----------
    shares
        By tissue; they add up to one everywhere.
    brain
        Share of brain, its fluid included.
    affine
        Voxel of the map to mm, the middle of the brain at the origin; x right, y forward, z up.
    corners
        Lowest and highest x, y, z of the head in mm.
    radii
        Half the extent in mm of the brain along x, y, z.
    centroids
        Of every part in mm, of its left and its right side where it has two; (part, side) is the
        key and side -1, 0 or 1.
    """

    shares: Mapping[str, Share]
    brain: Share
    affine: Array
    corners: Array
    radii: tuple[float, float, float]
    centroids: Mapping[tuple[str, int], tuple[float, float, float]]


def check_table(table: Mapping[int, str]) -> dict[int, str]:
    """Labels as integers, parts that are known.

    Raises
    ------
    UsageError
        With the part that is not.
    """
    known = {*TISSUES, *PARTS}
    for label, part in table.items():
        if part not in known:
            fix = f"use one of {', '.join(sorted(known))}"
            raise UsageError("label table", f"label {label} is the unknown part {part!r}", fix)
    return {int(label): part for label, part in table.items()}


def label_files(folder: str | Path) -> list[Path]:
    """Label maps of a folder in the order of their names; a file is a folder of one.

    Raises
    ------
    UnreadableError
        If there are none.
    """
    if Path(folder).is_file():
        return [Path(folder)]
    files = sorted(p for p in Path(folder).glob("*.nii*") if p.name.endswith((".nii", ".nii.gz")))
    if not files:
        raise UnreadableError(folder, "has no NIfTI file", "name a folder with label maps")
    return files


def file_hash(path: Path) -> str:
    """SHA-256 of a file, by which a record knows its map."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.lru_cache(maxsize=1)
def load_map(path: Path, table: tuple[tuple[int, str], ...]) -> HeadMap:
    """Read a label map and prepare it.

    Air and debris apart from the head are dropped. The section at the cut through the neck goes on
    downwards: a head that ends in air there would have a field that no head has.

    Raises
    ------
    InconsistentError
        If a label is not in the table, or there is no brain.
    """
    labels, affine = upright(path)
    parts, index = parts_of(labels, dict(table), path)
    parts, corner = _head_alone(parts, index)
    affine = affine @ translation(corner)
    names = [name for name, number in index.items() if (parts == number).any()]
    brain = np.isin(parts, [index[name] for name in BRAIN_PARTS & index.keys()])
    if not brain.any():
        raise InconsistentError(path, "has no brain", "check the label table")
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    between = np.isin(parts, [index[name] for name in BETWEEN_PARTS & index.keys()])
    brain = closed(brain, between, edges)
    inside = np.argwhere(brain)
    low, high = inside.min(0), inside.max(0)
    affine = translation(-nib.affines.apply_affine(affine, (low + high) / 2)) @ affine
    x, y, z = ((high - low + 1) * edges / 2).tolist()
    soft = _soft_tissue(parts, index, edges)
    return HeadMap(
        shares={name: _share(inside) for name, inside in _by_tissue(parts, index, names, soft)},
        brain=_share(brain),
        affine=affine,
        corners=nib.affines.apply_affine(affine, [[_MARGIN] * 3, np.array(parts.shape) - _MARGIN]),
        radii=(x, y, z),
        centroids=centroids_of(parts, index, names, affine),
    )


def sample(
    share: Share, voxels: Float[Tensor, "3 x y z"], device: torch.device | str = "cpu"
) -> Float[Tensor, "x y z"]:
    """Linear interpolation at ``voxels`` (of the map); beyond the box its border goes on."""
    size = torch.tensor(share.volume.shape, device=device).reshape(3, 1, 1, 1)
    corner = torch.tensor(share.corner, device=device).reshape(3, 1, 1, 1)
    # grid_sample wants the last axis first and coordinates in [-1, 1]
    grid = ((voxels - corner) * (2.0 / (size - 1)) - 1.0).flip(0).permute(1, 2, 3, 0)[None]
    volume = share.volume.to(device)[None, None]
    sampled: Tensor = torch.nn.functional.grid_sample(
        volume, grid, align_corners=True, padding_mode="border"
    )
    return sampled[0, 0]


def upright(path: Path) -> tuple[npt.NDArray[np.int64], Array]:
    """Labels with their axes nearest to right, forward, up; and the affine of these axes."""
    volume = read_volume(path)
    turn = nib.orientations.io_orientation(volume.affine)
    data = nib.orientations.apply_orientation(np.rint(volume.data).astype(np.int64), turn)
    return data, volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.data.shape)


def parts_of(
    labels: npt.NDArray[np.int64], table: dict[int, str], path: Path
) -> tuple[Volume, dict[str, int]]:
    """Give the number of the part in every voxel, and the numbers by name; air is 0.

    Raises
    ------
    InconsistentError
        If a label is not in the table.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - set(table))
    if unknown:
        listed = ", ".join(map(str, unknown))
        raise InconsistentError(path, f"labels {listed} are not in the table", "add them to it")
    names = ["air", *sorted({*table.values()} - {"air"})]
    index = {name: number for number, name in enumerate(names)}
    numbers = np.zeros(max(table) + 1, np.uint8)
    for label, part in table.items():
        numbers[label] = index[part]
    return numbers[labels], index


def _head_alone(parts: Volume, index: dict[str, int]) -> tuple[Volume, npt.NDArray[np.int64]]:
    """Crop to the largest object; air around it but below, where its last section goes on."""
    pieces, _ = ndimage.label(parts != index["air"])
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    head = pieces == sizes.argmax()
    area = head.sum((0, 1))
    bottom = int(np.argmax(area > _CUT * area.max()))
    # the outermost sections of a map are often torn
    bottom += 2
    low = np.argwhere(head).min(0)
    high = np.argwhere(head).max(0) + 1
    low[2] = bottom
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    alone = np.where(head, parts, index["air"])[box].astype(np.uint8)
    padding = [(_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, _MARGIN)]
    return np.pad(alone, padding, constant_values=index["air"]), low - [_MARGIN, _MARGIN, 0]


def closed(
    inside: npt.NDArray[np.bool_], between: npt.NDArray[np.bool_], edges: Array
) -> npt.NDArray[np.bool_]:
    """Brain with the fluid between its folds, within 8 mm, and no holes."""
    grown = ndimage.distance_transform_edt(~inside, sampling=edges) <= _CLOSING
    shrunk = ndimage.distance_transform_edt(grown, sampling=edges) > _CLOSING
    return np.asarray(ndimage.binary_fill_holes((shrunk & between) | inside), dtype=bool)


def _soft_tissue(parts: Volume, index: dict[str, int], edges: Array) -> npt.NDArray[np.bool_]:
    """Where soft tissue is fat: near the outer surface."""
    if "soft tissue" not in index:
        return np.zeros(parts.shape, dtype=bool)
    # air spaces within the head are no surface; each section by itself, for the neck is open below
    solid = np.stack([ndimage.binary_fill_holes(s) for s in (parts != index["air"]).T]).T
    # the neck's cut is no surface either
    extended = np.pad(solid, [(0, 0), (0, 0), (8, 0)], mode="edge")
    depth = ndimage.distance_transform_edt(extended, sampling=edges)[:, :, 8:]
    return np.asarray((parts == index["soft tissue"]) & (depth < _FAT_DEPTH))


def _by_tissue(
    parts: Volume, index: dict[str, int], names: list[str], fat: npt.NDArray[np.bool_]
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    members: dict[str, list[int]] = {}
    for name in names:
        members.setdefault(tissue_of(name), []).append(index[name])
    found = [(tissue, np.isin(parts, numbers) & ~fat) for tissue, numbers in members.items()]
    own_fat = fat | (parts == index["fat"]) if "fat" in index else fat
    return [
        *(each for each in found if each[0] != "fat"),
        *([("fat", own_fat)] if own_fat.any() else []),
    ]


def _share(inside: npt.NDArray[np.bool_]) -> Share:
    where = np.argwhere(inside)
    low = np.maximum(where.min(0) - _MARGIN, 0)
    high = np.minimum(where.max(0) + 1 + _MARGIN, inside.shape)
    box = inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    smooth = ndimage.gaussian_filter(box.astype(np.float32), _SMOOTHING, mode="nearest", truncate=5)
    x, y, z = low.tolist()
    return Share(torch.from_numpy(smooth), (x, y, z))


def centroids_of(
    parts: Volume, index: dict[str, int], names: list[str], affine: Array
) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Middle of every part in mm, and of its left and right halves, as `HeadMap` holds them."""
    found = {}
    for name in names:
        where = nib.affines.apply_affine(affine, np.argwhere(parts == index[name]))
        for side in (-1, 0, 1):
            half = where if side == 0 else where[np.sign(where[:, 0]) == side]
            if len(half):
                x, y, z = half.mean(0).tolist()
                found[name, side] = (x, y, z)
    return found


def translation(shift: npt.ArrayLike) -> Array:
    """Affine that moves by ``shift``."""
    matrix = np.eye(4)
    matrix[:3, 3] = np.asarray(shift, dtype=np.float64)
    return matrix
