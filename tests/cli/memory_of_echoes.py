"""Memory that a run from a scan takes, by stage and as a whole, beside what is predicted: as JSON.

A process of its own, with a C library that gives back what is freed: as volumes above 32 MB are,
while the heap of small ones grows.
"""

import json
import math

import torch

from qsmnet.cli.compose import compose
from qsmnet.cli.reconstruct_memory import held_bytes, predicted_bytes
from qsmnet.evaluate.cost import measure
from qsmnet.geometry import Geometry
from qsmnet.phase.scale import wrap
from qsmnet.pipeline import Pipeline
from qsmnet.volumes import Scan

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
METHODS = {
    "offset": "mcpc3ds",
    "unwrap": "romeo",
    "fit": "line",
    "background": "vsharp",
    "inverter": "tkd",
}
_WARM, _SIZE, _ECHOES = 32, 72, 6


def scan_of(size: int, echoes: int) -> tuple[Scan, torch.Tensor]:
    """Noisy echoes of a smooth field, and a mask of half the volume."""
    generator = torch.Generator().manual_seed(0)
    field = torch.linspace(-1, 1, size).expand(size, size, size)
    times = tuple(0.005 * (echo + 1) for echo in range(echoes))
    phase = torch.stack([800 * time * field for time in times])
    phase += 0.02 * torch.randn(phase.shape, generator=generator)
    mask = torch.ones_like(field, dtype=torch.bool)
    mask[: size // 2] = False
    magnitude = torch.stack([math.exp(-20 * time) * torch.ones_like(field) for time in times])
    return Scan(wrap(phase), magnitude, times, 3.0, Geometry((1, 1, 1), (0, 0, 1))), mask


def stage(group: str, name: str) -> tuple[float, float]:
    """Bytes used and predicted."""
    method = compose(group, name)

    def call(scan: Scan, mask: torch.Tensor) -> object:
        return method(scan, *((scan.wrapped_phase, mask) if group == "fit" else (mask,)))

    call(*scan_of(_WARM, _ECHOES))
    scan, mask = scan_of(_SIZE, _ECHOES)
    used = measure(lambda: call(scan, mask)).peak_memory_mib * 2**20
    return used, predicted_bytes(group, name, method, mask, _ECHOES)


def run() -> tuple[float, float]:
    """Bytes used by all stages, and the most that is predicted of one and what is held."""
    stages = {group: compose(group, name) for group, name in METHODS.items()}
    pipeline = Pipeline(mask=compose("mask", "whole"), **stages)
    pipeline.reconstruct(*scan_of(_WARM, _ECHOES))
    scan, mask = scan_of(_SIZE, _ECHOES)
    needs = [
        predicted_bytes(group, METHODS[group], method, mask, _ECHOES) + held_bytes(group, scan)
        for group, method in stages.items()
    ]
    return measure(lambda: pipeline.reconstruct(scan, mask)).peak_memory_mib * 2**20, max(needs)


if __name__ == "__main__":
    names = ("offset/mcpc3ds", "fit/line", "r2star/nlls")
    found = {name: stage(*name.split("/")) for name in names}
    print(json.dumps({**found, "run": run()}))
