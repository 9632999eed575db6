"""Seconds and peak memory of one call, measured in this process."""

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil
import torch

T = TypeVar("T")

_MIB = 2**20
# short against anything worth measuring, long enough not to slow it
_INTERVAL = 0.005


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What a call returned or raised, and what it cost.

    Parameters
    ----------
    value
        The result; None when it failed.
    error
        One line that says why it failed, empty otherwise.
    seconds
        Wall time, loading of weights and building of kernels included; what an earlier call left in
        a cache (weights, spectra of the prism kernel) is not paid again.
    peak_memory_mib
        Largest increase of the process's resident memory during the call, in MiB, seen every 5 ms;
        on a GPU the increase of what is allocated there. Memory freed by earlier calls is handed
        back to the system first where the C library allows it (Linux); elsewhere the increase may
        be understated.
    """

    value: T | None
    error: str
    seconds: float
    peak_memory_mib: float


def measure(call: Callable[[], T], device: torch.device | str = "cpu") -> Measured[T]:
    """Run ``call`` once; an exception becomes an error line, so that a comparison goes on."""
    _release_memory()
    peak = _GpuPeak(device) if torch.device(device).type == "cuda" else _ResidentPeak()
    value, error = None, ""
    with peak:
        start = time.perf_counter()
        try:
            value = call()
        except Exception as failure:  # noqa: BLE001 - whatever a method raises belongs in its row
            error = one_line(failure)
        peak.finish()
        seconds = time.perf_counter() - start
    return Measured(value, error, seconds, peak.increase / _MIB)


class _ResidentPeak:
    """Watches the resident set size from a thread."""

    def __init__(self) -> None:
        self.increase = 0
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_ResidentPeak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> None:
        """Look a last time, for calls shorter than the interval."""
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        self.increase = max(self.increase, self._process.memory_info().rss - self._before)


class _GpuPeak:
    """Reads the allocator's own high-water mark."""

    def __init__(self, device: torch.device | str) -> None:
        self.increase = 0
        self._device = device

    def __enter__(self) -> "_GpuPeak":
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        self.increase = torch.cuda.max_memory_allocated(self._device) - self._before

    def finish(self) -> None:
        """Kernels run behind: wait for them, so that the time is theirs too."""
        torch.cuda.synchronize(self._device)


def _release_memory() -> None:
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def one_line(failure: BaseException) -> str:
    """Return what an exception says, or its name where it says nothing."""
    text = " ".join(str(failure).split())
    return text or type(failure).__name__
