"""Heads painted from label maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.simulate.grid import WHOLE, Grid, Window
from qsmnet.simulate.head.canvas import HeadCanvas
from qsmnet.simulate.head.labels import (
    HeadMap,
    Share,
    check_table,
    file_hash,
    label_files,
    load_map,
    sample,
)
from qsmnet.simulate.head.nuclei import HOSTS, draw_nuclei, paint_nuclei
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import small_rotation

# a tissue whose box is larger than this share of the map is sampled everywhere
_WIDE = 0.2
# air in mm between the top of the head and that of the grid
_ABOVE = 8.0


@dataclass(frozen=True)
class LabelHead:
    """Heads of the label maps of a folder.

    Every tissue's indicator is smoothed by 0.6 voxels of the map and interpolated linearly, and
    tissues mix in proportion: surfaces without steps, and thin sheets keep their amount. The
    nearest label would leave the map's cubes in the field.

    Parameters
    ----------
    labels
        Folder with NIfTI label maps, and nothing else of that kind; or one map.
    table
        Part or tissue (`qsmnet.simulate.head.tissues`) of each label.
    tilt
        Largest rotation in degrees of the head in the grid.

    Raises
    ------
    UsageError
        If the table names an unknown part.
    UnreadableError
        If the folder has no label map.
    """

    labels: str
    table: Mapping[int, str]
    tilt: float = 6.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", check_table(self.table))
        label_files(self.labels)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Draw the map, the nuclei that it lacks and its place in the grid."""
        files = label_files(self.labels)
        path = files[int(rng.integers(len(files)))]
        head = self._map(path)
        low, high = head.corners
        x, y, _ = (-(low + high) / 2).tolist()
        return {
            "file": path.name,
            "sha256": file_hash(path),
            "radii": list(head.radii),
            "nuclei": draw_nuclei(rng, head.centroids),
            "softness": 1.0,
            "placement": {
                "scale": 1.0,
                "centre": [x, y, grid.extent[2] / 2 - float(high[2]) - _ABOVE],
                "rotation": small_rotation(rng, self.tilt),
            },
        }

    def paint(self, record: Record, canvas: HeadCanvas) -> None:
        """Paint the tissues of the map, then the nuclei in them."""
        head = self._recorded(record)
        voxels = _voxels(head, canvas, WHOLE)
        host = torch.zeros_like(canvas.chi)
        for name, share in head.shares.items():
            window = _window(head, share, canvas)
            local = voxels if window == WHOLE else voxels[:, *window]
            if local.numel():
                weight = torch.zeros_like(host)
                weight[window] = sample(share, local)
                canvas.add(name, weight)
                if name in HOSTS:
                    host += weight
        canvas.brain = sample(head.brain, voxels)
        paint_nuclei(canvas, record["nuclei"], host)

    def _map(self, path: Path) -> HeadMap:
        return load_map(path, tuple(sorted(self.table.items())))

    def _recorded(self, record: Record) -> HeadMap:
        named = {path.name: path for path in label_files(self.labels)}
        path = named.get(record["file"], Path(self.labels))
        if path.is_dir() or file_hash(path) != record["sha256"]:
            raise InconsistentError(path, "has not the map of the record", "name its folder")
        return self._map(path)


def _voxels(head: HeadMap, canvas: HeadCanvas, window: Window) -> Tensor:
    inverse = torch.tensor(np.linalg.inv(head.affine), dtype=torch.float32)
    points = canvas.points(window)
    return torch.einsum("ij,jxyz->ixyz", inverse[:3, :3], points) + inverse[:3, 3].reshape(
        3, 1, 1, 1
    )


def _window(head: HeadMap, share: Share, canvas: HeadCanvas) -> Window:
    sizes = np.array(share.volume.shape)
    everything = np.array(head.shares["air"].volume.shape)
    if sizes.prod() > _WIDE * everything.prod():
        return WHOLE
    ends = np.array([share.corner, np.array(share.corner) + sizes - 1])
    corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), -1).reshape(-1, 3)
    path = corners @ head.affine[:3, :3].T + head.affine[:3, 3]
    return canvas.window(path.tolist(), canvas.margin)
