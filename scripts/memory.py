"""Peak memory of every method, for the prediction that `qsmnet reconstruct` makes before it works.

    python scripts/memory.py --write

measures each method in a process of its own, on a head of 144^3 voxels, and writes
configs/memory.yaml; without ``--write`` it prints the table, with names it measures only these and
keeps the others: ``python scripts/memory.py --write inverter/tv``. What is measured is the largest
increase of resident memory during one call, which the input does not count in, over the voxels of
the grid that the method works on: the volume, or the bounding box of the mask, either padded by the
method's own factor.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmark import counted_ffts, head

from qsmnet.cli.compose import available, compose
from qsmnet.cli.reconstruct_memory import working_voxels
from qsmnet.dipole import padded_shape
from qsmnet.evaluate.cost import measure
from qsmnet.inversion.unknown_field import bounding_box
from qsmnet.volumes import Scan, TotalField

GROUPS = ("inverter", "background", "unwrap")
TABLE = Path(__file__).resolve().parents[1] / "configs" / "memory.yaml"
_HEADER = """\
# Peak memory of each method in bytes a voxel of the grid that it works on (the volume, or the
# bounding box of the mask; padded by the method's factor), beside its input: scripts/memory.py.
"""


def main() -> None:
    """Measure what is asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="GROUP/NAME")
    parser.add_argument("--size", type=int, default=144, help="voxels an axis")
    parser.add_argument("--write", action="store_true", help=f"into {TABLE.name}")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measured(*arguments.methods[0].split("/"), arguments.size)))
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
        TABLE.write_text(_HEADER + yaml.safe_dump(table, default_flow_style=None, width=100))


def measured(group: str, name: str, size: int) -> dict[str, Any]:
    """Bytes a voxel of one call, and which grid the voxels are of."""
    method, local = compose(group, name), head(size)
    local = replace(local, noise=torch.full_like(local.field, 0.001))
    if group == "background":
        total = TotalField(local.field, local.mask, local.geometry, noise=local.noise)
        call = lambda: method(total)  # noqa: E731
    elif group == "unwrap":
        phase = (local.field * 200)[None].remainder(2 * torch.pi) - torch.pi
        scan = Scan(phase, local.mask[None].float(), (0.01,), 3.0, local.geometry)
        call = lambda: method(scan, local.mask)  # noqa: E731
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


def _in_process(method: str, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", method, "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
