"""Speed and memory of the inverters on one simulated head, as a Markdown table.

    python scripts/benchmark.py --size 160 --threads 2

FFT pairs are counted by wrapping ``torch.fft``. ``ratio`` is the time over (pairs x one rfftn +
irfftn of the same padded grid, measured in the same run): 1 would be FFTs and nothing else.
``CPU ratio`` is the same of processor time, to be read where the machine is busy. Every method runs
in a process of its own, so that peak memory is its own; ``base`` is that before it inverts.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qsmnet.cli.compose import compose
from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.volumes import LocalField

METHODS = ("tkd", "tsvd", "tikhonov", "gradient_tikhonov", "iterative_tikhonov")
METHODS += ("incomplete_spectrum", "ndi", "rts", "tv", "nltv", "l1", "hdqsm", "tgv", "medi")
METHODS += ("kqsm", "unet", "unrolled", "unrolled_tiny")
COLUMNS = ("method", "seconds", "FFT pairs", "FFT grid", "s / pair", "ratio", "CPU ratio")
COLUMNS += ("base GB", "peak GB")
# at least; short ones go on until memory has settled, which takes fresh processes half a second
_REPEATS, _SECONDS = 3, 1.0


def main() -> None:
    """Parse, run every method in its own process, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160, help="voxels an axis")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.size, arguments.threads)))
        return
    print(f"{arguments.size}^3 voxels, {arguments.threads} threads, median of {_REPEATS} or more\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + "---|" * len(COLUMNS))
    for method in arguments.methods:
        print(_row(method, _in_process(method, arguments.size, arguments.threads)), flush=True)


def measure(name: str, size: int, threads: int) -> dict[str, Any]:
    """Seconds, FFT pairs and memory of one method; runs in a process of its own."""
    torch.set_num_threads(threads)
    method, local = compose("inverter", name), head(size)
    base = _memory()
    with counted_ffts() as calls:  # the first run also fills caches of kernels
        method(local)
    seconds, processor = _timed(lambda: method(local))
    result: dict[str, Any] = {"seconds": seconds, "base": base, "peak": _memory()}
    if calls:
        grid, pairs = calls.most_common(1)[0]
        pair, pair_processor = pair_seconds(grid)
        ratios = seconds / (pairs * pair), processor / (pairs * pair_processor)
        result |= {"pairs": pairs, "grid": grid, "pair": pair, "ratios": ratios}
    return result


def head(size: int) -> LocalField:
    """Ellipsoid of random blobs with its field and noise of 0.001 ppm; anatomy costs no time."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, size)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    mask = (x / 0.75) ** 2 + (y / 0.9) ** 2 + (z / 0.75) ** 2 < 1
    texture = torch.nn.functional.interpolate(
        torch.randn((1, 1, 20, 20, 20), generator=generator), (size,) * 3, mode="trilinear"
    )[0, 0]
    chi = torch.where(texture > 0.3, 0.05, -0.02) * mask
    geometry = Geometry((1.0, 1.0, 1.0), (0.1, 0.05, 0.99))
    field = Dipole(chi.shape, geometry).forward(chi)
    field += 0.001 * torch.randn(field.shape, generator=generator)
    magnitude = (1 + 5 * chi) * mask + 0.01 * torch.rand(field.shape, generator=generator)
    return LocalField(
        field * mask, mask, geometry, noise=0.001, magnitude=magnitude, radians_per_ppm=20.0
    )


@contextlib.contextmanager
def counted_ffts() -> Iterator[Counter[tuple[int, ...]]]:
    """Count pairs of real 3-D transforms by grid while it is entered."""
    calls: Counter[tuple[int, ...]] = Counter()
    plain = torch.fft.rfftn, torch.fft.irfftn

    def forward(volume: Tensor, *args: Any, **options: Any) -> Tensor:  # noqa: ANN401 passed on
        spectrum = plain[0](volume, *args, **options)
        _count(calls, options.get("s") or volume.shape[-3:], spectrum)
        return spectrum

    def inverse(spectrum: Tensor, *args: Any, **options: Any) -> Tensor:  # noqa: ANN401 passed on
        volume = plain[1](spectrum, *args, **options)
        _count(calls, volume.shape[-3:], volume)
        return volume

    torch.fft.rfftn, torch.fft.irfftn = forward, inverse
    try:
        yield calls
    finally:
        torch.fft.rfftn, torch.fft.irfftn = plain


def _count(calls: Counter[tuple[int, ...]], grid: tuple[int, ...], result: Tensor) -> None:
    calls[tuple(grid)] += 0.5 * result[..., 0, 0, 0].numel()  # every item of a batch is a transform


def pair_seconds(grid: tuple[int, ...]) -> tuple[float, float]:
    """One rfftn and one irfftn of ``grid``: wall and processor time."""
    volume = torch.randn(grid)
    return _timed(lambda: torch.fft.irfftn(torch.fft.rfftn(volume), s=grid))


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall: list[float] = []
    processor: list[float] = []
    while len(wall) < _REPEATS or sum(wall) < _SECONDS:
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return statistics.median(wall), statistics.median(processor)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _in_process(method: str, size: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", method]
    command += ["--size", str(size), "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _row(method: str, result: dict[str, Any]) -> str:
    if "error" in result:
        cells = [method, result["error"]] + [""] * (len(COLUMNS) - 2)
        return f"| {' | '.join(cells)} |"
    cells = [method, f"{result['seconds']:.2f}", "", "", "", "", ""]
    if "pairs" in result:
        grid = " x ".join(map(str, result["grid"]))
        cells[2:] = [f"{result['pairs']:g}", grid, f"{result['pair']:.4f}"]
        cells += [f"{ratio:.2f}" for ratio in result["ratios"]]
    cells += [f"{result['base']:.2f}", f"{result['peak']:.2f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
