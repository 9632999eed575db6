"""Whether `qsmnet reconstruct` will fit into memory, told before it works for minutes."""

import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from jaxtyping import Bool
from torch import Tensor

from qsmnet.dipole import padded_shape
from qsmnet.errors import ResourceError
from qsmnet.volumes import LocalField, Scan, TotalField, bounding_box

_CGROUP = Path("/sys/fs/cgroup")
# what the pipeline holds beside its input when a stage runs, in float32: sets of echoes (finite
# phase and magnitude, from the fit on the unwrapped phase), and volumes (fields, noise, magnitude)
_HELD_ECHOES = {"offset": 2, "unwrap": 2, "fit": 3, "background": 3, "inverter": 3}
_HELD_VOLUMES = {"background": 6, "inverter": 6}
_NEEDS_LESS = {"inverter": "--inverter tkd", "r2star": "--r2star arlo"}
_LEAST = 2**28  # below a quarter of a gigabyte no prediction is better than trying

Stages = Mapping[tuple[str, str], object]


def check_memory(stages: Stages, data: Scan | TotalField | LocalField, mask: Tensor) -> None:
    """Refuse a run that would not fit.

    Parameters
    ----------
    stages
        (config group, name) -> method, of the stages that will run; a user's own methods are not
        in the table, and not predicted.
    data, mask
        What has been read, and so is in memory already.

    Raises
    ------
    ResourceError
        If the most demanding stage needs more than there is.
    """
    echoes = len(data.echo_times) if isinstance(data, Scan) else 1
    needs = {
        (group, name): predicted_bytes(group, name, method, mask, echoes) + held_bytes(group, data)
        for (group, name), method in stages.items()
    }
    (group, name), needed = max(needs.items(), key=lambda item: item[1])
    there, less = available_bytes(), _NEEDS_LESS.get(group)
    if needed > max(there, _LEAST):
        choose = f", or choose a method that needs less, such as {less}" if less else ""
        raise ResourceError(
            "memory",
            f"{group} {name} needs about {needed / 1e9:.1f} GB on this grid, and "
            f"{there / 1e9:.1f} GB are available",
            f"crop the volumes to the head, close other programs{choose}; "
            "--no-memory-check tries nevertheless",
        )


def predicted_bytes(
    group: str, name: str, method: object, mask: Bool[Tensor, "x y z"], echoes: int = 1
) -> float:
    """Peak of memory beside the input; 0 for methods that were not measured."""
    entry = _table().get(group, {}).get(name)
    if entry is None:
        return 0.0
    if entry["grid"] == "echoes":
        sizes = echo_voxels(mask, echoes)
        return float(sum(each * size for each, size in zip(entry["bytes"], sizes, strict=True)))
    return float(entry["bytes"] * working_voxels(method, entry["grid"], mask))


def echo_voxels(mask: Bool[Tensor, "x y z"], echoes: int) -> tuple[int, int, int, int]:
    """Voxels of the volume, of all its echoes, of the mask, and of all echoes of the mask."""
    whole, inside = mask.numel(), int(mask.sum())
    return whole, whole * echoes, inside, inside * echoes


def working_voxels(
    method: object, grid: Literal["volume", "mask"], mask: Bool[Tensor, "x y z"]
) -> int:
    """Voxels of the padded grid that ``method`` works on."""
    box = bounding_box(mask, least=2) if grid == "mask" else tuple(slice(0, n) for n in mask.shape)
    x, y, z = (part.stop - part.start for part in box)
    return math.prod(padded_shape((x, y, z), getattr(method, "padding", 1.0)))


def held_bytes(group: str, data: Scan | TotalField | LocalField) -> int:
    """Return the bytes that earlier stages have left in memory when one of ``group`` runs."""
    volumes = _HELD_VOLUMES.get(group, 0)
    if isinstance(data, Scan):
        volumes += len(data.echo_times) * _HELD_ECHOES.get(group, 0)
        return data.magnitude[0].nbytes * volumes
    return data.field.nbytes * volumes


def available_bytes(cgroup: Path = _CGROUP) -> float:
    """Memory that can be had without swapping out: of the machine, within the container's limit."""
    return min(float(psutil.virtual_memory().available), _left_in(cgroup))


def _left_in(cgroup: Path) -> float:
    """Least that either version of Linux' control groups leaves; infinity without a limit."""
    pairs = (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    )
    return min(_left(*(cgroup / name for name in each)) for each in pairs)


def _left(limit: Path, usage: Path, stat: Path) -> float:
    try:
        bound, used, lines = limit.read_text(), usage.read_text(), stat.read_text().splitlines()
    except OSError:
        return math.inf
    if not bound.strip().isdigit():
        return math.inf
    # cached files count as used, and are given up when needed
    counts = dict(line.split()[:2] for line in lines)
    cached = counts.get("total_inactive_file", counts.get("inactive_file", "0"))
    return float(max(0, int(bound) - int(used) + int(cached)))


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("qsmnet.configs").joinpath("memory.yaml").read_text("utf8")
    table: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return table
