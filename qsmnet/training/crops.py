"""Training items of one U-Net of a staged network: crops of scenes that were prepared once.

A crop of a field is no field of the crop's susceptibility, so that a network with D inside is
trained on whole objects; those of a size that fits a training step are mostly surface, where what
is unknown outside rules the error. But a single U-Net within it sees maps and no D. These maps are
computed for whole scenes of the size of scans, and cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from qsmnet.geometry import Geometry
from qsmnet.io.files import atomic_write
from qsmnet.networks.problem import Problem, Volume
from qsmnet.networks.staged import Staged, turned_back, turned_inside
from qsmnet.simulate.randomness import item_generator
from qsmnet.training.batch import Batch, Item, collate
from qsmnet.training.losses import demeaned
from qsmnet.training.scenes import Scenes

# share of a crop that is to be object, and how often another is drawn for it
_OBJECT, _TRIES = 0.3, 8
# what is stored before the channels that a U-Net is given
_WANTED, _MASK, _BEFORE = 0, 1, 2
# a U-Net is told of geometry by its maps alone
_NO_GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Crop(Item):
    """What a U-Net is given, ``channels`` ``(channel, x, y, z)``; ``chi`` is its wanted result."""

    channels: Tensor | None = None


@dataclass(frozen=True)
class CropBatch(Batch):
    """`Batch` of crops, with the channels of each ``(batch, channel, x, y, z)``."""

    channels: Tensor | None = None

    def to(self, device: torch.device) -> "CropBatch":
        """Move the volumes to another device."""
        assert self.channels is not None  # noqa: S101
        moved = super().to(device)
        assert isinstance(moved, CropBatch)  # noqa: S101
        return replace(moved, channels=self.channels.to(device))

    def inputs(self, network: nn.Module) -> tuple[Any, ...]:  # noqa: ARG002  of any kind
        """Return what a U-Net is given."""
        return (self.channels,)


def collate_crops(items: Sequence[Item]) -> CropBatch:
    """Stack crops."""
    channels = [item.channels for item in items if isinstance(item, Crop)]
    stacked = torch.stack([each for each in channels if each is not None]).float()
    return CropBatch(**vars(collate(items)), channels=stacked)


class Crops(Dataset[Item]):
    """Random crops of prepared scenes, mirrored, and their first two axes exchanged.

    Parameters
    ----------
    folder
        Of `prepare`.
    size
        Voxels of a crop along each axis, or all there are.
    seed, split, length
        Item i depends on (seed, split, i) alone.
    """

    def __init__(self, folder: Path, size: int, seed: int, split: str, length: int) -> None:
        # not what a kill has left of another
        self.paths = sorted(folder.glob("[0-9]*.npy"))
        self.size, self.seed, self.split, self.length = size, seed, split, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Crop:
        rng = item_generator(self.seed, f"{self.split} crops", index)
        # nothing but what is cut is read
        scene = np.load(self.paths[int(rng.integers(len(self.paths)))], mmap_mode="r")
        for _ in range(_TRIES):
            volumes = self._cut(scene, rng)
            if (volumes[_MASK] > 0).mean() > _OBJECT:
                break
        axes = [axis + 1 for axis in range(3) if rng.random() < 0.5]
        cut = torch.from_numpy(np.array(volumes)).float().flip(axes)
        cut = cut.transpose(1, 2) if rng.random() < 0.5 else cut
        channels, mask = cut[_BEFORE:].contiguous(), cut[_MASK].contiguous()
        # of field and noise a U-Net knows what its channels hold
        parts = (torch.zeros_like(mask), mask, torch.zeros_like(mask), cut[_WANTED].contiguous())
        return Crop(*parts, mask, _NO_GEOMETRY, index, channels=channels)

    def _cut(self, scene: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401 of numpy, mapped
        sizes = [min(n, self.size) for n in scene.shape[1:]]
        starts = [
            int(rng.integers(n - size + 1)) for n, size in zip(scene.shape[1:], sizes, strict=True)
        ]
        x, y, z = (slice(a, a + size) for a, size in zip(starts, sizes, strict=True))
        return scene[:, x, y, z]


@torch.no_grad()
def prepare(network: Staged, stage: int, scenes: Scenes, folder: Path, before: Path) -> None:
    """Write what U-Net ``stage`` is given of every scene, and what it should return.

    Half precision, ``(2 + channels, x, y, z)`` a file, what it should return and the mask first,
    on the grid that the U-Net works on; beside them, what it corrects on the scan's. What is there
    is not made again.

    Parameters
    ----------
    network
        With the U-Nets before this one trained.
    stage
        From 0.
    scenes
        Simulated already.
    folder
        Of the results, ``00000.npy`` and so on.
    before
        That of the stage before, whose estimates are corrected; not looked at by the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(scenes.count):
        if _path(folder, index).exists():
            continue
        batch = scenes[index]
        problem = network.problem(*batch.inputs(network)[:5])
        first = stage == 0
        chi = network.begin(problem) if first else estimate(network, stage, problem, before, index)
        channels = network.seen(problem, stage, chi, batch.magnitude)
        wanted = missing_correction(problem, channels[:, :1], batch.chi)
        # what is interpolated cannot be corrected in turn
        _write(_uncorrected(folder, index), channels[0, :1])
        (frame,) = network.frames(problem)
        shown = torch.cat((wanted[0], channels[0]))
        turned, inside = turned_inside(frame, shown, problem.mask[0])
        _write(_path(folder, index), torch.cat((turned[:1], inside, turned[1:])))


@torch.no_grad()
def estimate(network: Staged, stage: int, problem: Problem, before: Path, index: int) -> Volume:
    """Correct scene ``index`` by the U-Net before ``stage``; over the problem's scale."""
    stored = torch.from_numpy(np.load(_path(before, index))).float()
    correction: Tensor = network.correction(stage - 1, stored[None, _BEFORE:])[0]
    (frame,) = network.frames(problem)
    correction = turned_back(frame, correction)
    corrected = torch.from_numpy(np.load(_uncorrected(before, index))).float()
    return (corrected + problem.mask[0] * correction)[None]


def missing_correction(problem: Problem, chi: Volume, truth: Volume) -> Float[Tensor, "..."]:
    """Truth over the scale less the estimate, in the mask, where both have the same mean."""
    return demeaned(truth / problem.scale - chi, problem.mask)


def _path(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.npy"


def _uncorrected(folder: Path, index: int) -> Path:
    return folder / "uncorrected" / f"{index:05d}.npy"


def _write(path: Path, content: Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, overwrite=True) as part, part.open("wb") as stream:
        np.save(stream, content.half().numpy())
