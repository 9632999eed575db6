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
from qsmnet.inversion.unknown_field import bounding_box
from qsmnet.volumes import LocalField, Scan, TotalField

_CGROUP = Path("/sys/fs/cgroup")
# volumes in float32 that the stages leave beside the unwrapped echoes: fields, noise, magnitude
_KEPT_VOLUMES = 6
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
    needs = {key: predicted_bytes(*key, method, mask) for key, method in stages.items()}
    (group, name), most = max(needs.items(), key=lambda item: item[1])
    needed, there = most + kept_bytes(data), available_bytes()
    if needed > max(there, _LEAST):
        raise ResourceError(
            "memory",
            f"{group} {name} needs about {needed / 1e9:.1f} GB on this grid, and "
            f"{there / 1e9:.1f} GB are available",
            "crop the volumes to the head, close other programs, or choose a method that needs "
            "less, such as --inverter tkd; --no-memory-check tries nevertheless",
        )


def predicted_bytes(group: str, name: str, method: object, mask: Bool[Tensor, "x y z"]) -> float:
    """Peak of memory beside the input; 0 for methods that were not measured."""
    entry = _table().get(group, {}).get(name)
    return entry["bytes"] * working_voxels(method, entry["grid"], mask) if entry else 0.0


def working_voxels(
    method: object, grid: Literal["volume", "mask"], mask: Bool[Tensor, "x y z"]
) -> int:
    """Voxels of the padded grid that ``method`` works on."""
    box = bounding_box(mask) if grid == "mask" else tuple(slice(0, n) for n in mask.shape)
    x, y, z = (part.stop - part.start for part in box)
    return math.prod(padded_shape((x, y, z), getattr(method, "padding", 1.0)))


def kept_bytes(data: Scan | TotalField | LocalField) -> int:
    """Return the bytes that stages leave in memory for the ones after them."""
    if isinstance(data, Scan):
        echo = data.magnitude[0]
        return echo.nbytes * (len(data.echo_times) + _KEPT_VOLUMES)
    return data.field.nbytes * _KEPT_VOLUMES


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
