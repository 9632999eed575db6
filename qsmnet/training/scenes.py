"""Whole training scenes on disk: simulated once, looked at by every stage of a training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from qsmnet.errors import UsageError
from qsmnet.geometry import Geometry, Triple
from qsmnet.io.files import atomic_write, write_text
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
    settings
        Plain values that the items depend on. They are kept beside the scenes, so that another run
        can use a folder and none takes scenes that are not its own.
    """

    folder: Path
    items: Dataset[Item]
    count: int
    workers: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def simulate(self) -> None:
        """Write the scenes that are missing.

        Raises
        ------
        QsmnetError
            That of an item.
        UsageError
            If the folder has scenes of other settings.
        OutputError, ResourceError
            If a file cannot be written, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()
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

    def _claim(self) -> None:
        path = self.folder / "settings.json"
        text = json.dumps(dict(self.settings), indent=1, sort_keys=True)
        if not path.exists():
            write_text(path, text)
        elif path.read_text() != text:
            problem = "holds scenes of other settings"
            raise UsageError(self.folder, problem, "name another folder, or the same settings")

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
