"""Label maps as brains alone: small enough to keep a dozen, quick enough to paint many from."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.simulate.head.labels import (
    BETWEEN_PARTS,
    BRAIN_PARTS,
    centroids_of,
    closed,
    parts_of,
    translation,
    upright,
)
from qsmnet.simulate.head.nuclei import HOSTS, draw_nuclei
from qsmnet.simulate.head.tissues import tissue_of
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.shapes import ellipsoid

Array = npt.NDArray[np.float64]

#: Name of what is not brain.
OUTSIDE = "outside"
# voxels of the map around the brain, more than its closing is wide
_MARGIN = 10


@dataclass(frozen=True)
class BrainMap:
    """Brain of a label map.

    Parameters
    ----------
    parts
        Number of the part in every voxel of the brain's box; 0 outside of the brain.
    brain
        The brain, its fluid included.
    names
        Of the parts, by number; the first is `OUTSIDE`.
    voxels
        3x4 map from mm, the middle of the brain at the origin, x right, y forward, z up, to voxels.
    radii
        Half the extent in mm of the brain along x, y, z.
    """

    parts: UInt8[Tensor, "x y z"]
    brain: Bool[Tensor, "x y z"]
    names: Sequence[str]
    voxels: tuple[tuple[float, float, float, float], ...]
    radii: tuple[float, float, float]


@functools.lru_cache(maxsize=32)
def load_brain(path: Path, table: tuple[tuple[int, str], ...]) -> BrainMap:
    """Read the brain of a label map; nuclei that the map lacks are put in, the same every time.

    Parameters
    ----------
    path
        NIfTI file.
    table
        Part of each label (`qsmnet.simulate.head.tissues`), as pairs.

    Raises
    ------
    UnreadableError
        If the file cannot be read.
    InconsistentError
        If a label is not in the table, or there is no brain.
    """
    labels, affine = upright(path)
    parts, index = parts_of(labels, dict(table), path)
    parts, corner = _around_brain(parts, index, path)
    affine = affine @ translation(corner)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    brain = closed(
        np.isin(parts, [index[name] for name in BRAIN_PARTS & index.keys()]),
        np.isin(parts, [index[name] for name in BETWEEN_PARTS & index.keys()]),
        edges,
    )
    inside = np.argwhere(brain)
    low, high = inside.min(0), inside.max(0)
    affine = translation(-nib.affines.apply_affine(affine, (low + high) / 2)) @ affine
    x, y, z = ((high - low + 1) * edges / 2).tolist()
    return BrainMap(
        parts=torch.from_numpy(_with_nuclei(parts, index, affine) * brain),
        brain=torch.from_numpy(brain),
        names=(OUTSIDE, *sorted(index.keys() - {"air"}, key=index.__getitem__)),
        voxels=tuple(tuple(row) for row in np.linalg.inv(affine)[:3].tolist()),
        radii=(x, y, z),
    )


def _around_brain(
    parts: npt.NDArray[np.uint8], index: Mapping[str, int], path: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Box of the brain with a margin, and its first voxel."""
    inside = np.isin(parts, [index[name] for name in BRAIN_PARTS & index.keys()])
    if not inside.any():
        raise InconsistentError(path, "has no brain", "check the label table")
    padded = np.pad(parts, _MARGIN)
    low, high = (each(np.nonzero(inside), axis=1) for each in (np.min, np.max))
    box = tuple(slice(a, b + 2 * _MARGIN + 1) for a, b in zip(low, high, strict=True))
    return padded[box], low - _MARGIN


def _with_nuclei(
    parts: npt.NDArray[np.uint8], index: dict[str, int], affine: Array
) -> npt.NDArray[np.uint8]:
    names = [name for name, number in index.items() if (parts == number).any()]
    centroids = centroids_of(parts, index, [n for n in names if n != "air"], affine)
    host = np.isin(parts, [number for name, number in index.items() if tissue_of(name) in HOSTS])
    # of one seed: a map has its own nuclei
    for nucleus in draw_nuclei(np.random.default_rng(0), centroids):
        number = index.setdefault(nucleus["name"], len(index))
        parts[_inside(nucleus, parts.shape, affine) & host] = number
    return parts


def _inside(nucleus: Record, shape: tuple[int, ...], affine: Array) -> npt.NDArray[np.bool_]:
    """Voxels of the map in a nucleus of `qsmnet.simulate.head.nuclei.draw_nuclei`."""
    centre = nib.affines.apply_affine(np.linalg.inv(affine), nucleus["centre"])
    reach = 3.0 * max(nucleus["radii"]) / np.linalg.norm(affine[:3, :3], axis=0).min()
    low = np.clip(np.floor(centre - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(centre + reach), 0, shape).astype(int)
    inside = np.zeros(shape, dtype=bool)
    if (high <= low).any():
        return inside
    block = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1)
    offset = nib.affines.apply_affine(affine, block) - nucleus["centre"]
    local = torch.from_numpy(np.moveaxis(offset @ np.array(nucleus["matrix"]).T, -1, 0).copy())
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside[box] = (ellipsoid(local.float(), nucleus["radii"]) < 0).numpy()
    return inside
