"""``qsmnet doctor``: whether everything is here, and whole."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import torch

from qsmnet import __version__
from qsmnet.cli import Parser
from qsmnet.errors import WeightsError
from qsmnet.weights.store import verify_released

_PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "scipy", "nibabel", "scikit-image")


def main(argv: list[str]) -> int:
    """Print versions, machine and the state of the released weights; 6 if they are damaged."""
    parser = Parser(
        prog="qsmnet doctor",
        description="Show versions, memory and device, and verify the released weights.",
        epilog="example: qsmnet doctor     (exit code 6 if weights are damaged or missing)",
    )
    parser.parse_args(argv)
    for label, value in (*_versions(), *_machine()):
        print(f"{label:<14}{value}")
    return 0 if _weights_whole() else WeightsError.exit_code


def _versions() -> Iterator[tuple[str, str]]:
    yield "qsmnet", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in _PACKAGES:
        yield name, metadata.version(name)


def _machine() -> Iterator[tuple[str, str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    free = shutil.disk_usage(Path.cwd()).free
    yield "cores", f"{cores} (torch uses {torch.get_num_threads()} threads)"
    yield "memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} available"
    yield "disk", f"{free / 2**30:.1f} GiB free in the current folder"
    yield "device", _device()


def _device() -> str:
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _weights_whole() -> bool:
    results = verify_released()
    for name, whole in results:
        print(f"{'weights':<14}{name}: {'verified' if whole else 'DAMAGED, install qsmnet again'}")
    if not results:
        print(f"{'weights':<14}none released")
    return all(whole for _, whole in results)
