"""Whole training scenes on disk: simulated once, looked at by every stage of a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from qsmnet.geometry import Geometry, Triple
from qsmnet.io.files import atomic_write
from qsmnet.training.batch import VOLUMES, Batch, Failure, Item, Told, collate_told
from qsmnet.training.loader_process import prepare_process


@dataclass(frozen=True)
class Scenes:
    """The first ``count`` items of a data set, kept in a folder as batches of one.

    Parameters
    ----------
    folder
        One file a scene; those that are there are not simulated again.
    items
        Where they come from.
    count
        How many.
    workers
        Processes that simulate; 0 is this one.
    """

    folder: Path
    items: Dataset[Item]
    count: int
    workers: int = 0

    def simulate(self) -> None:
        """Write the scenes that are missing.

        Raises
        ------
        QsmnetError
            That of an item.
        OutputError, ResourceError
            If a file cannot be written, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [index for index in range(self.count) if not self._path(index).exists()]
        for index, batch in zip(missing, self._loader(missing), strict=True):
            if isinstance(batch, Failure):
                batch.throw()
            with atomic_write(self._path(index), overwrite=True) as part:
                torch.save(_plain(batch), part)

    def __getitem__(self, index: int) -> Batch:
        """Read scene ``index``."""
        kept = torch.load(self._path(index), weights_only=True)
        geometry = Geometry(_triple(kept["voxel_size"]), _triple(kept["b0_dir"]))
        volumes = {name: kept[name] for name in (*VOLUMES, "magnitude")}
        return Batch(**volumes, geometry=(geometry,), items=(index,))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.pt"

    def _loader(self, indices: Sequence[int]) -> DataLoader[Item | Failure]:
        """Scenes in order."""
        return DataLoader(
            Subset(Told(self.items), list(indices)),
            batch_size=1,
            num_workers=self.workers,
            collate_fn=collate_told,
            worker_init_fn=prepare_process,
            multiprocessing_context="spawn" if self.workers else None,
            generator=torch.Generator(),
        )


def _plain(batch: Batch) -> dict[str, object]:
    (geometry,) = batch.geometry
    volumes = {name: getattr(batch, name) for name in (*VOLUMES, "magnitude")}
    return {**volumes, "voxel_size": list(geometry.voxel_size), "b0_dir": list(geometry.b0_dir)}


def _triple(values: Sequence[float]) -> Triple:
    x, y, z = values
    return x, y, z
