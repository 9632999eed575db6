"""Nuclei that label maps lack, placed by what the maps have."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qsmnet.simulate.head.canvas import HeadCanvas
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.shapes import ellipsoid

Point = tuple[float, float, float]

# mean positions in mm in the adult atlas of the MNI (right side; 0 is the midline)
_LANDMARKS: dict[str, Point] = {
    "thalamus": (11, -19, 7),
    "caudate": (13, 10, 10),
    "putamen": (25, 1, 0),
    "globus pallidus": (20, -5, -1),
    "ventral diencephalon": (10, -16, -9),
    "hippocampus": (26, -23, -14),
    "amygdala": (23, -5, -19),
    "cerebellar white matter": (17, -55, -35),
    "third ventricle": (0, -14, 2),
    "fourth ventricle": (0, -46, -33),
    "brain stem": (0, -30, -33),
}
_NUCLEI: dict[str, tuple[Point, Point]] = {
    "red nucleus": ((5, -20, -9), (3.0, 3.2, 4.0)),
    "substantia nigra": ((10, -17, -12), (4.5, 6.0, 2.5)),
    "dentate nucleus": ((14, -56, -35), (5.5, 7.5, 4.0)),
}
# of the substantia nigra, which slopes outwards and down
_SLOPE = 30.0
#: Tissue in which such nuclei lie.
HOSTS = frozenset({"brain stem", "white matter"})
_FEWEST = 5


def atlas_to_head(
    centroids: Mapping[tuple[str, int], Point],
) -> npt.NDArray[np.float64] | None:
    """Affine 3x4 map from the atlas to a head, by least squares over the centroids of structures.

    None where fewer than five structures are known.
    """
    pairs = [
        ((side * x, y, z, 1.0), centroids[name, side])
        for name, (x, y, z) in _LANDMARKS.items()
        for side in ((0,) if x == 0 else (-1, 1))
        if (name, side) in centroids
    ]
    if len(pairs) < _FEWEST:
        return None
    atlas, head = (np.array(each, dtype=np.float64) for each in zip(*pairs, strict=True))
    return np.asarray(np.linalg.lstsq(atlas, head, rcond=None)[0].T)


def draw_nuclei(
    rng: np.random.Generator, centroids: Mapping[tuple[str, int], Point]
) -> list[Record]:
    """Place the nuclei that are not among the parts of a map, on both sides."""
    affine = atlas_to_head(centroids)
    present = {name for name, _ in centroids}
    if affine is None:
        return []
    return [
        _draw_nucleus(rng, name, side, affine)
        for name in _NUCLEI
        if name not in present
        for side in (-1, 1)
    ]


def _draw_nucleus(
    rng: np.random.Generator, name: str, side: int, affine: npt.NDArray[np.float64]
) -> Record:
    (x, y, z), radii = _NUCLEI[name]
    centre = affine @ [side * x, y, z, 1.0] + rng.normal(0, 0.4, 3)
    turn = np.eye(3)
    if name == "substantia nigra":
        angle = np.radians(_SLOPE) * side
        turn[0::2, 0::2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return {
        "name": name,
        "centre": centre.tolist(),
        # from mm in the head, about the centre, to mm in the nucleus' own axes
        "matrix": (turn @ np.linalg.inv(affine[:, :3])).tolist(),
        "radii": (np.array(radii) * rng.uniform(0.9, 1.1, 3)).tolist(),
    }


def paint_nuclei(canvas: HeadCanvas, nuclei: list[Record], host: Tensor) -> None:
    """Paint where the host tissue is (its share of every voxel)."""
    for nucleus in nuclei:
        window = canvas.window([nucleus["centre"]], 2.0 * max(nucleus["radii"]) + canvas.margin)
        points = canvas.points(window)
        centre = torch.tensor(nucleus["centre"], dtype=points.dtype).reshape(3, 1, 1, 1)
        matrix = torch.tensor(nucleus["matrix"], dtype=points.dtype)
        local = torch.einsum("ij,jxyz->ixyz", matrix, points - centre)
        weight = canvas.coverage(ellipsoid(local, nucleus["radii"])) * host[window]
        canvas.cover(nucleus["name"], weight, window)
