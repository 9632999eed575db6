"""Speed of the background removals on one simulated head, as a Markdown table.

    python scripts/benchmark_background.py --size 160 --threads 2

The head of ``benchmark.py`` amid sources of field, counted and timed as there. ``error`` is that of
the local field about its mean, 5 voxels and more inside the mask, in % of the field. ``lsmr`` is
SciPy's solver on the problem of PDF as most codes have it, in float64, without preconditioner or
regularisation, to a tolerance of 1e-5; it takes most of an hour at 160^3.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import torch
from benchmark import counted_ffts, head, pair_seconds
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

from qsmnet.background.crop import Crop
from qsmnet.background.depth import depth_in_mask
from qsmnet.cli.compose import available, compose
from qsmnet.dipole import dipole_spectrum
from qsmnet.volumes import LocalField, TotalField

COLUMNS = ("method", "seconds", "FFT pairs", "FFT grid", "s / pair", "ratio", "CPU ratio", "error")
_REPEATS = 3
_TOLERANCE = 1e-5


def main() -> None:
    """Parse, run every method in its own process, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160, help="voxels an axis")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=available("background"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.size, arguments.threads)))
        return
    print(f"{arguments.size}^3 voxels, {arguments.threads} threads, best of {_REPEATS}\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + "---|" * len(COLUMNS))
    for method in arguments.methods:
        print(_row(method, _in_process(method, arguments.size, arguments.threads)), flush=True)


def measure(name: str, size: int, threads: int) -> dict[str, Any]:
    """Seconds, FFT pairs and error of one method; runs in a process of its own."""
    torch.set_num_threads(threads)
    total, truth = amid_sources(head(size))
    method = unregularised_pdf if name == "lsmr" else compose("background", name)
    with counted_ffts() as calls:
        local = method(total)
    deep = depth_in_mask(total.mask, total.geometry, 5.0) > 5.0
    result: dict[str, Any] = {"error": error(local.field, truth, deep & local.mask)}
    grid, pairs = calls.most_common(1)[0]
    result |= {"pairs": pairs, "grid": grid}
    if name != "lsmr":
        wall, processor, pair, pair_processor = _interleaved(lambda: method(total), grid)
        ratios = wall / (pairs * pair), processor / (pairs * pair_processor)
        result |= {"seconds": wall, "pair": pair, "ratios": ratios}
    return result


def amid_sources(local: LocalField) -> tuple[TotalField, Tensor]:
    """The local field with that of nine balls around the mask and a shim, and the truth."""
    axes = [torch.linspace(-1, 1, n) for n in local.field.shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    field = local.field + 0.1 * x - 0.05 * y * z + 0.3
    b = local.geometry.b0_dir
    generator = torch.Generator().manual_seed(1)
    for _ in range(9):
        at = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
        at = at * torch.tensor([0.9, 1.08, 0.9])
        x0, y0, z0 = (axis - c for axis, c in zip((x, y, z), at.tolist(), strict=True))
        square = x0**2 + y0**2 + z0**2
        along = b[0] * x0 + b[1] * y0 + b[2] * z0
        field += 3.0 * 0.12**3 * (3 * along**2 - square) / square.clamp_min(1e-4) ** 2.5
    mask = local.mask
    return TotalField(field * mask, mask, local.geometry, noise=local.noise), local.field


def unregularised_pdf(total: TotalField) -> LocalField:
    """PDF by LSMR: dipoles outside of the mask that explain the field inside."""
    crop = Crop.of(total.mask, 20.0, total.geometry)
    spectrum = dipole_spectrum(crop.shape, total.geometry, dtype=torch.float64)
    inside = crop.take(total.mask) > 0
    field = crop.take(total.field).double()

    def convolve(values: Any, on: Tensor, then: Tensor) -> Any:  # noqa: ANN401 NumPy's, to SciPy
        volume = torch.zeros(crop.shape, dtype=torch.float64)
        volume[on] = torch.from_numpy(values).double().ravel()
        return crop.filter(volume, spectrum)[then].numpy()

    operator = LinearOperator(
        (int(inside.sum()), int((~inside).sum())),
        matvec=lambda chi: convolve(chi, ~inside, inside),
        rmatvec=lambda residual: convolve(residual, inside, ~inside),
        dtype=float,
    )
    found = lsmr(operator, field[inside].numpy(), atol=_TOLERANCE, btol=_TOLERANCE, maxiter=5000)
    field[inside] -= torch.from_numpy(convolve(found[0], ~inside, inside))
    local = crop.put(field.float(), total.mask) * total.mask
    return LocalField(local, total.mask, total.geometry)


def error(field: Tensor, truth: Tensor, where: Tensor) -> float:
    """Error in % of the truth, both about their means."""
    found, true = (each[where] - each[where].mean() for each in (field, truth))
    return 100 * float((found - true).norm() / true.norm())


def _interleaved(work: Any, grid: tuple[int, ...]) -> tuple[float, float, float, float]:  # noqa: ANN401
    """Least wall and processor time of ``work`` and of one FFT pair, in turns: machines wander."""
    own: list[tuple[float, float]] = []
    pairs: list[tuple[float, float]] = []
    for _ in range(_REPEATS):
        pairs.append(pair_seconds(grid))
        start = time.perf_counter(), time.process_time()
        work()
        own.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processor = (min(each) for each in zip(*own, strict=True))
    pair, pair_processor = (min(each) for each in zip(*pairs, strict=True))
    return wall, processor, pair, pair_processor


def _in_process(method: str, size: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", method]
    command += ["--size", str(size), "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{method}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _row(method: str, result: dict[str, Any]) -> str:
    cells = [method, "", f"{result['pairs']:g}", " x ".join(map(str, result["grid"])), "", "", ""]
    if "seconds" in result:
        cells[1], cells[4] = f"{result['seconds']:.2f}", f"{result['pair']:.4f}"
        cells[5:] = [f"{ratio:.2f}" for ratio in result["ratios"]]
    cells.append(f"{result['error']:.1f}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
