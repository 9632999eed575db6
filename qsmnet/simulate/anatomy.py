"""Brains of label maps, as many as one likes of a dozen: warped, scaled and filled at random."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qsmnet.errors import InconsistentError, UnreadableError, UsageError
from qsmnet.simulate import tissue
from qsmnet.simulate.brain import BrainCanvas, warped
from qsmnet.simulate.contrast import FLUID, PARTS, Contrast
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.brain_map import BrainMap, load_brain
from qsmnet.simulate.head.known_maps import origin_of
from qsmnet.simulate.head.labels import check_table, file_hash, label_files
from qsmnet.simulate.head.tissues import TISSUES, tissue_of
from qsmnet.simulate.overlays import Lesions, Texture, Vessels
from qsmnet.simulate.phantom import Phantom, Record, Source
from qsmnet.simulate.randomness import draw_seed, small_rotation, uniform

#: Half axes in mm of a mean adult brain with its cerebellum, in which overlays are placed.
_RADII = (66.0, 82.0, 68.0)
# no more samples of the map along an axis of a voxel than this
_FINEST = 3
# voxels of the map along the shortest edge of a voxel beyond which it is halved first
_COARSE = 1.9
# of voxels with a longer side than this times the shorter, a whole brain would fill a slab only
_SLENDER = 1.8
# side and middle of the Gaussian of 0.6 voxels that takes the steps off a map's surfaces
_TAPS = (0.1664, 0.6672)


@dataclass(frozen=True)
class Anatomy:
    """Random brains in the shape of a folder's label maps.

    A map is stretched, sheared, mirrored, rotated and warped; its parts get a susceptibility each
    (`qsmnet.simulate.contrast.Contrast`), then texture, veins and lesions are painted over. Where a
    voxel holds several parts its susceptibility is their mean: the map, without its steps, is
    sampled up to 3 x 3 x 3 times a voxel.

    Parameters
    ----------
    labels
        Folder with label maps. No part of what makes a bank another bank: their hashes are.
    table
        Part or tissue (`qsmnet.simulate.head.tissues`) of each label.
    maps
        Numbers of the maps that are used, which end their files' names; None uses all.
    whole
        Share of brains scaled so that all of the brain lies in the grid; the others are 0.85 to
        1.15 times as large as they are and the grid is a window somewhere in them. On grids that
        are much longer one way than another, all are windows.
    margin
        Range of the field of view over the extent of a whole brain.
    contrast, vessels, lesions, texture
        Of susceptibility; the texture of fluid is a tenth of that of tissue.

    Raises
    ------
    UsageError
        If the table names an unknown part.
    UnreadableError
        If the folder has not these maps.
    ValueError
        If ``whole`` is no share.
    """

    labels: str | None = field(default=None, repr=False)
    table: Mapping[int, str] = field(default_factory=dict)
    maps: Sequence[int] | None = None
    whole: float = 0.5
    margin: Sequence[float] = (1.08, 1.35)
    contrast: Contrast = field(default_factory=Contrast)
    vessels: Vessels = field(default_factory=lambda: Vessels(count=(0, 60), sinus=0.3))
    lesions: Lesions = field(default_factory=lambda: Lesions(probability=0.5))
    texture: Texture = field(default_factory=lambda: Texture(strength=(0.0, 0.01)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", check_table(self.table))
        if not 0 <= self.whole <= 1:
            raise ValueError(f"whole must be a share from 0 to 1, got {self.whole}")
        if self.labels is not None:
            _ = self.files

    @property
    def files(self) -> list[Path]:
        """The label maps, in the order of ``maps``.

        Raises
        ------
        UsageError
            If no folder is named.
        UnreadableError
            If it has not all of them.
        """
        if self.labels is None:
            problem = "simulated anatomy needs a folder of label maps, and none is named"
            raise UsageError("labels", problem, "name it: data.labels=DIR for qsmnet train")
        found = label_files(self.labels)
        if self.maps is None:
            return found
        numbered = {_number(path): path for path in found}
        missing = [str(n) for n in self.maps if n not in numbered]
        if missing:
            problem = f"has no label map of number {', '.join(missing)}"
            raise UnreadableError(self.labels, problem, "name the folder that has, or other maps")
        return [numbered[n] for n in self.maps]

    @property
    def materials(self) -> list[dict[str, str]]:
        """File, SHA-256, source and licence of every map, for banks and cards."""
        if self.labels is None:
            return []
        hashes = {path.name: file_hash(path) for path in self.files}
        return [{"file": name, "sha256": sha, **origin_of(sha)} for name, sha in hashes.items()]

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Map, shape, contrast and overlays; the map itself is not read yet."""
        files = self.files
        path = files[int(rng.integers(len(files)))]
        return {
            "file": path.name,
            "placement": self._draw_placement(rng, grid),
            "warp": {
                "seed": draw_seed(rng),
                "spacing": uniform(rng, (25, 45)),
                "amplitude": uniform(rng, (0, 4)),
            },
            "stretch": rng.uniform(0.92, 1.08, 3).tolist(),
            "shear": rng.uniform(-0.06, 0.06, 3).tolist(),
            "mirrored": bool(rng.random() < 0.5),
            "contrast": self.contrast.draw(rng),
            "vessels": self.vessels.draw(rng, _RADII),
            "lesions": self.lesions.draw(rng, _RADII),
            "texture": self.texture.draw(rng),
            "softness": uniform(rng, (1.0, 1.6)),
        }

    def render(self, record: Record, grid: Grid) -> Phantom:
        """Sample the map, then paint the overlays.

        Raises
        ------
        InconsistentError
            If the folder has not the record's map.
        """
        brain = self._brain(record["file"])
        canvas = _canvas(record, brain, grid)
        mask = _paint_map(canvas, brain, record)
        if not bool(mask.any()):
            # a narrow window beside the brain
            placement = {**record["placement"], "centre": [0.0, 0.0, 0.0]}
            return self.render({**record, "placement": placement}, grid)
        self._paint_texture(canvas, record)
        self.vessels.render(record["vessels"], canvas)
        self.lesions.render(record["lesions"], canvas)
        return Phantom(canvas.chi * mask, mask, canvas.segmentation * mask)

    def _paint_texture(self, canvas: BrainCanvas, record: Record) -> None:
        texture = torch.zeros_like(canvas.chi)
        self.texture.render(record["texture"], canvas.points(), texture)
        canvas.chi += torch.where(canvas.segmentation == tissue.CSF, 0.1, 1.0) * texture

    def _draw_placement(self, rng: np.random.Generator, grid: Grid) -> Record:
        slender = max(grid.extent) > _SLENDER * min(grid.extent)
        whole = bool(rng.random() < self.whole) and not slender
        drawn = {"rotation": small_rotation(rng, 12.0), "whole": whole}
        if whole:
            return {**drawn, "margin": uniform(rng, self.margin), "centre": [0.0, 0.0, 0.0]}
        centre = (rng.uniform(-0.5, 0.5, 3) * _RADII).tolist()
        return {**drawn, "scale": uniform(rng, (0.85, 1.15)), "centre": centre}

    def _brain(self, name: str) -> BrainMap:
        named = {path.name: path for path in self.files}
        if name not in named:
            problem = f"has no {name}, of which the record is"
            raise InconsistentError(str(self.labels), problem, "name the folder that has")
        return load_brain(named[name], tuple(sorted(self.table.items())))


def with_maps(
    source: Source, labels: str | None = None, maps: Sequence[int] | None = None
) -> Source:
    """Return a source with another folder, or other maps of it; one that has no maps as it is."""
    if not isinstance(source, Anatomy):
        return source
    chosen = source.maps if maps is None else tuple(maps)
    return replace(source, labels=labels or source.labels, maps=chosen)


def _number(path: Path) -> int | None:
    found = re.search(r"(\d+)$", path.name.split(".")[0])
    return int(found[1]) if found else None


def _canvas(record: Record, brain: BrainMap, grid: Grid) -> BrainCanvas:
    placement = record["placement"]
    if placement["whole"]:
        scale = _fit(record, brain, grid) / placement["margin"]
    else:
        scale = placement["scale"]
    centre = [-c * scale for c in placement["centre"]]
    placed = {"scale": scale, "centre": centre, "rotation": placement["rotation"]}
    return BrainCanvas({**record, "placement": placed, "chi": {}}, grid)


def _fit(record: Record, brain: BrainMap, grid: Grid) -> float:
    """Scale at which the brain, rotated, touches the grid's faces."""
    radii = np.array(brain.radii) * np.array(record["stretch"])
    rotation = np.array(record["placement"]["rotation"])
    # of an ellipsoid: half its extent along each axis of the grid
    half = np.sqrt((rotation.T**2) @ radii**2)
    return float(min(np.array(grid.extent) / (2 * half)))


def _paint_map(canvas: BrainCanvas, brain: BrainMap, record: Record) -> Bool[Tensor, "x y z"]:
    """Fill the canvas with the mean over each voxel; the mask is where most of it is brain."""
    matrix, shift = _to_voxels(record, brain)
    points = warped(canvas.points(), record["warp"])
    device = points.device
    voxels = torch.einsum("ij,jxyz->ixyz", matrix.to(device), points)
    voxels = voxels + shift.to(device).reshape(3, 1, 1, 1)
    chi, share = _sampled(brain, record["contrast"]["chi"], voxels, _along(canvas, matrix))
    nearest = _nearest(brain.parts.to(device), voxels)
    labels = torch.tensor(_labels(brain), dtype=torch.uint8, device=device)
    mask = share > 0.5
    canvas.chi.copy_(chi)
    canvas.segmentation.copy_(labels[nearest.long()] * mask)
    return mask


def _to_voxels(record: Record, brain: BrainMap) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Linear map from the brain's mm to voxels of the map: shear, stretch and mirror undone."""
    voxels = torch.tensor(brain.voxels)
    xy, xz, yz = record["shear"]
    shape = torch.tensor([[1.0, xy, xz], [0.0, 1.0, yz], [0.0, 0.0, 1.0]])
    shape = shape * torch.tensor(record["stretch"]).reciprocal()
    if record["mirrored"]:
        shape[0] *= -1
    return voxels[:, :3] @ shape, voxels[:, 3].clone()


def _along(canvas: BrainCanvas, matrix: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Edges of a voxel, one a column, in voxels of the map; the warp is too smooth to matter."""
    rotation = torch.tensor(canvas.placement["rotation"])
    edges = torch.tensor(canvas.grid.voxel_size)
    return matrix @ rotation * edges / float(canvas.placement["scale"])


def _sampled(
    brain: BrainMap, chi: Mapping[str, float], voxels: Tensor, along: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z"]]:
    """Mean susceptibility and share of brain of every voxel."""
    device = voxels.device
    volumes, corner = _smooth_volumes(brain, chi, voxels)
    # twice as coarse a map is fine enough for voxels twice as large, at an eighth of the samples
    factor = 2 if float(along.norm(dim=0).min()) > _COARSE else 1
    volumes = torch.nn.functional.avg_pool3d(volumes, factor)
    middle, along = (voxels - corner - (factor - 1) / 2) / factor, along / factor
    size = torch.tensor(volumes.shape[-3:], device=device).reshape(3, 1, 1, 1)
    shifts = [sum(each, torch.zeros(3)) for each in product(*_steps(along))]
    total = torch.zeros(2, *voxels.shape[1:], device=device)
    for shift in shifts:
        # grid_sample wants the last axis first and coordinates in [-1, 1]
        at = (middle + shift.to(device).reshape(3, 1, 1, 1)) * (2.0 / (size - 1)) - 1.0
        total += torch.nn.functional.grid_sample(
            volumes[None],
            at.flip(0).permute(1, 2, 3, 0)[None],
            align_corners=True,
            padding_mode="border",
        )[0]
    return total[0] / len(shifts), total[1] / len(shifts)


def _steps(along: Float[Tensor, "3 3"]) -> list[list[Tensor]]:
    """By axis, where the samples of a voxel lie about its middle."""
    # interpolation covers a voxel of the map and half of the next
    counts = [min(_FINEST, max(1, math.ceil(float(edge.norm()) - 0.5))) for edge in along.T]
    return [
        [edge * ((i + 0.5) / n - 0.5) for i in range(n)]
        for edge, n in zip(along.T, counts, strict=True)
    ]


def _smooth_volumes(
    brain: BrainMap, chi: Mapping[str, float], voxels: Tensor
) -> tuple[Float[Tensor, "2 x y z"], Tensor]:
    """Susceptibility and indicator of the brain in the box of the map that the voxels lie in."""
    device = voxels.device
    box = _box(voxels, brain.parts.shape)
    values = torch.tensor([chi.get(name, chi[FLUID]) for name in brain.names], device=device)
    parts = brain.parts[box].to(device).long()
    volumes = torch.stack([values[parts], brain.brain[box].to(device).float()])
    corner = torch.tensor([each.start for each in box], device=device)
    return _smooth(volumes), corner.reshape(3, 1, 1, 1)


def _box(voxels: Float[Tensor, "3 x y z"], shape: Sequence[int]) -> tuple[slice, ...]:
    lowest, highest = (each.tolist() for each in torch.aminmax(voxels.flatten(1).cpu(), dim=1))
    starts = [min(max(0, math.floor(a) - 4), n - 8) for a, n in zip(lowest, shape, strict=True)]
    stops = [max(a + 8, math.ceil(b) + 5) for a, b in zip(starts, highest, strict=True)]
    return tuple(slice(a, min(b, n)) for a, b, n in zip(starts, stops, shape, strict=True))


def _smooth(volumes: Tensor) -> Tensor:
    """Blur along each axis, by hand: a GPU's convolutions round to ten bits."""
    side, middle = _TAPS
    for axis in (1, 2, 3):
        n = volumes.shape[axis]
        blurred = volumes * middle
        for start, other in ((0, 1), (1, 0)):
            blurred.narrow(axis, start, n - 1).add_(volumes.narrow(axis, other, n - 1), alpha=side)
        # beyond an end its value goes on
        for end in (0, n - 1):
            blurred.select(axis, end).add_(volumes.select(axis, end), alpha=side)
        volumes = blurred
    return volumes


def _nearest(parts: UInt8[Tensor, "mx my mz"], voxels: Tensor) -> UInt8[Tensor, "x y z"]:
    x, y, z = (
        axis.round().long().clamp(0, n - 1) for axis, n in zip(voxels, parts.shape, strict=True)
    )
    return parts[x, y, z]


def _labels(brain: BrainMap) -> list[int]:
    """By number of a part, its label of `qsmnet.simulate.tissue`."""
    return [TISSUES[tissue_of(name)].label if name in PARTS else tissue.CSF for name in brain.names]
