"""A bank of phantoms on disk: rendered once, measured anew for every training item."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from qsmnet.io.files import write_error
from qsmnet.simulate.phantom import Phantom, Record
from qsmnet.simulate.simulator import Simulator


class Bank:
    """Phantoms ``0 .. n-1`` of a split, stored as float16 susceptibility and uint8 labels.

    Building resumes where it stopped; a bank that was made by other settings is refused.

    Parameters
    ----------
    folder
        Where the arrays lie.
    simulator
        What draws them.
    n, seed, split
        How many, and which.
    workers
        Processes that build.

    Raises
    ------
    ValueError
        If ``folder`` holds a bank of other settings.
    OutputError, ResourceError
        If it cannot be written, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        simulator: Simulator,
        n: int,
        seed: int,
        split: str,
        workers: int = 1,
    ) -> None:
        self.folder, self.simulator = folder, simulator
        self.n, self.seed, self.split = n, seed, split
        settings: dict[str, object] = {
            "simulator": repr(simulator),
            "n": n,
            "seed": seed,
            "split": split,
        }
        if simulator.materials:
            settings["materials"] = simulator.materials
        # first: what cannot be drawn leaves no folder
        self.records = [simulator.draw(seed, split, i) for i in range(n)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _claim(folder / "bank.json", settings)
            missing = [i for i in range(n) if not self._path(i).exists()]
            if missing:
                self._build(missing, workers)
        except OSError as error:
            raise write_error(folder, error) from error

    def __len__(self) -> int:
        return self.n

    def phantom(self, index: int) -> Phantom:
        """Phantom ``index``; its susceptibility was rounded to half precision once, on the disk."""
        with np.load(self._path(index)) as stored:
            labels = torch.from_numpy(stored["labels"]).to(self.simulator.device)
            chi = torch.from_numpy(stored["chi"].astype(np.float32)).to(self.simulator.device)
        return Phantom(chi, labels < _OUTSIDE, torch.where(labels < _OUTSIDE, labels, 0))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.npz"

    def _build(self, indices: list[int], workers: int) -> None:
        jobs = [(self.simulator, self.records[i], self._path(i)) for i in indices]
        if workers <= 1:
            for job in jobs:
                _render_to(job)
            return
        # spawned, not forked: a forked child of a threaded torch can hang
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_prepare_process
        ) as pool:
            list(pool.map(_render_to, jobs, chunksize=4))


_OUTSIDE = 255


def _prepare_process() -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group of processes; the one that waits for this one ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render_to(job: tuple[Simulator, Record, Path]) -> None:
    simulator, record, path = job
    phantom = simulator.phantom(record)
    labels = torch.where(phantom.mask, phantom.segmentation, _OUTSIDE).to(torch.uint8)
    with _part(path) as part, part.open("wb") as stream:
        np.savez(stream, chi=phantom.chi.half().cpu().numpy(), labels=labels.cpu().numpy())


def _claim(path: Path, settings: dict[str, object]) -> None:
    if path.exists():
        if _plain(json.loads(path.read_text())) != _plain(settings):
            raise ValueError(f"{path.parent} holds a bank of other settings; name another folder")
        return
    # renamed, not written in place: another process of the run may be reading
    with _part(path) as part:
        part.write_text(json.dumps(settings, indent=1))


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Give a name beside ``path``, renamed to it on success and removed on failure."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _plain(settings: dict[str, object]) -> dict[str, object]:
    # a list of a YAML file and the tuple of a default are the same setting
    simulator = str(settings["simulator"]).translate(str.maketrans("[]", "()"))
    return {**settings, "simulator": simulator}
