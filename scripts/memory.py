"""Peak memory of every method, for the prediction that `qsmnet reconstruct` makes before it works.

    python scripts/memory.py --write

measures each method in a process of its own, on a head of 144^3 voxels (96^3 where there are
echoes), and writes configs/memory.yaml; without ``--write`` it prints the table, with names it
measures only these and keeps the others: ``python scripts/memory.py --write inverter/tv``. What is
measured is the largest increase of resident memory during one call, which the input does not count
in, over the voxels of the grid that the method works on: the volume, or the bounding box of the
mask, either padded by the method's own factor.

What works on echoes is measured with 3 and 5 of them, in the head and in the whole volume, and four
numbers that are not negative are fitted to that: bytes a voxel, a voxel and echo, a voxel of the
mask, and of the mask and echo. What is freed goes back to the system there, as it does anyway where
a volume has more than 32 MB. Masks are not in the table: they are found before the prediction,
while nothing else is held.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from benchmark import counted_ffts, head
from scipy.optimize import nnls
from torch import Tensor

from qsmnet.cli.compose import available, compose
from qsmnet.cli.reconstruct_memory import echo_voxels, working_voxels
from qsmnet.dipole import padded_shape
from qsmnet.evaluate.cost import measure
from qsmnet.phase.echoes import unwrap_echoes
from qsmnet.phase.scale import wrap
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Scan, TotalField, bounding_box

OF_ECHOES = ("offset", "unwrap", "fit", "r2star")
GROUPS = ("inverter", "background", *OF_ECHOES)
TABLE = Path(__file__).resolve().parents[1] / "configs" / "memory.yaml"
_HEADER = """\
# Peak memory of each method in bytes a voxel of the grid that it works on (the volume, or the
# bounding box of the mask; padded by the method's factor), beside its input: scripts/memory.py.
# Of methods of echoes: bytes a voxel, a voxel and echo, a voxel of the mask, of the mask and echo.
"""
# the C library's heap grows with what is freed; blocks above this many bytes stay out of it
_RETURNED = {"MALLOC_MMAP_THRESHOLD_": "131072"}
_B0, _DECAY, _FIRST, _WARM = 3.0, 30.0, 0.005, 24


def main() -> None:
    """Measure what is asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="GROUP/NAME")
    parser.add_argument("--size", type=int, help="voxels an axis (default: 144, of echoes 96)")
    parser.add_argument("--write", action="store_true", help=f"into {TABLE.name}")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        group, name = arguments.methods[0].split("/")
        with_echoes = group in OF_ECHOES
        size = arguments.size or (96 if with_echoes else 144)
        print(json.dumps((measured_echoes if with_echoes else measured)(group, name, size)))
        return
    table: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text()) if TABLE.exists() else {}
    every = [f"{group}/{name}" for group in GROUPS for name in available(group)]
    for method in arguments.methods or every:
        group, name = method.split("/")
        entry = _in_process(method, arguments.size)
        print(method, entry, flush=True)
        if "bytes" in entry:
            table.setdefault(group, {})[name] = entry
    if arguments.write:
        TABLE.write_text(_HEADER + _text(table))


def _text(table: dict[str, dict[str, Any]]) -> str:
    """YAML, one line a method."""
    lines = []
    for group, methods in sorted(table.items()):
        entries = {
            name: yaml.safe_dump(entry, default_flow_style=True, width=100).strip()
            for name, entry in sorted(methods.items())
        }
        lines += [f"{group}:", *(f"  {name}: {entry}" for name, entry in entries.items())]
    return "\n".join(lines) + "\n"


def measured(group: str, name: str, size: int) -> dict[str, Any]:
    """Bytes a voxel of one call, and which grid the voxels are of."""
    method, local = compose(group, name), head(size)
    local = replace(local, noise=torch.full_like(local.field, 0.001))
    if group == "background":
        total = TotalField(local.field, local.mask, local.geometry, noise=local.noise)
        call = lambda: method(total)  # noqa: E731
    else:
        call = lambda: method(local)  # noqa: E731
    with counted_ffts() as calls:
        result = measure(call)
    if result.error:
        return {"error": result.error}
    grid = "volume"
    box = tuple(part.stop - part.start for part in bounding_box(local.mask))
    padding = getattr(method, "padding", 1.0)
    if calls and calls.most_common(1)[0][0] == padded_shape(box, padding):
        grid = "mask"
    voxels = working_voxels(method, grid, local.mask)
    return {"bytes": round(result.peak_memory_mib * 2**20 / voxels), "grid": grid}


def measured_echoes(group: str, name: str, size: int) -> dict[str, Any]:
    """Bytes by `echo_voxels`: what 3 and 5 echoes take, in the head and in the whole volume."""
    method = compose(group, name)
    measure(echo_call(group, method, *_scan(_WARM, 3)))  # imports are not the method's
    sizes, peaks = [], []
    for echoes, whole in product((3, 5), (False, True)):
        scan, mask = _scan(size, echoes)
        mask |= whole
        result = measure(echo_call(group, method, scan, mask))
        if result.error:
            return {"error": result.error}
        sizes.append(echo_voxels(mask, echoes))
        peaks.append(result.peak_memory_mib * 2**20)
    # relative errors count, so that a small run is predicted as well as a large one
    shares, _ = nnls(np.array(sizes) / np.array(peaks)[:, None], np.ones(len(peaks)))
    return {"bytes": [round(share) for share in shares], "grid": "echoes"}


def echo_call(group: str, method: Any, scan: Scan, mask: Tensor) -> Callable[[], object]:  # noqa: ANN401 a method of any group
    """Call of a method as the pipeline makes it."""
    removed = replace(scan, offset_removed=True)
    if group == "unwrap":
        return lambda: unwrap_echoes(removed, mask, method)
    if group == "fit":
        return lambda: method(removed, scan.wrapped_phase, mask)
    return lambda: method(scan, mask)


def _scan(size: int, echoes: int) -> tuple[Scan, Tensor]:
    """Noisy echoes of `head`, and its mask."""
    local, generator = head(size), torch.Generator().manual_seed(1)
    times = tuple(_FIRST * (echo + 1) for echo in range(echoes))
    noise = 0.01 * torch.rand((echoes, *local.field.shape), generator=generator)
    magnitude = noise + torch.stack([local.mask * math.exp(-_DECAY * time) for time in times])
    phase = torch.stack([local.field * radians_per_ppm(time, _B0) for time in times])
    phase += 0.01 / magnitude * torch.randn(phase.shape, generator=generator)
    return Scan(wrap(phase), magnitude, times, _B0, local.geometry), local.mask


def _in_process(method: str, size: int | None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", method]
    command += ["--size", str(size)] if size else []
    environment = os.environ | (_RETURNED if method.partition("/")[0] in OF_ECHOES else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
