"""Voxel size, B0 direction, field and noise: how a phantom is measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.dipole import Dipole, Kernel
from qsmnet.geometry import Geometry, Triple
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import (
    draw_seed,
    item_generator,
    lattice_noise,
    log_uniform,
    random_rotation,
    uniform,
    white_noise,
)

#: Noise of the noisiest of strongly noisy scans, as a factor of the largest of the others.
STRONGEST_NOISE = 3.0

_LARGEST_CONE = 180.0
# in ppm; in tissue, fields are a tenth of it
_LARGEST_NOISE = 1.0
_SHARES = ("isotropic", "axial", "noise_free", "strongly_noisy", "unmasked", "voids")


@dataclass(frozen=True)
class Acquisition:
    """Ranges from which a measurement is drawn.

    Parameters
    ----------
    voxel_sizes
        Length of the seeded list of voxel sizes (`voxel_size_list`); a list, so that the six
        component spectra of each can be cached. Used where ``voxel_size`` is None.
    voxel_size
        One voxel size in mm for all.
    isotropic
        Share of 1 mm isotropic entries of the list.
    tilt
        Largest angle in degrees between B0 and the grid's third axis; 180 is any direction.
    axial
        Share of scans with B0 exactly along the third axis.
    b0_dir
        One B0 direction in voxel axes for all.
    noise
        Smallest and largest standard deviation in ppm, log-uniform.
    noise_free, strongly_noisy, unmasked
        Shares of scans without noise, with one to `STRONGEST_NOISE` times the largest noise, and
        with a field that is known outside the mask.
    voids
        Share of scans with signal voids: one to six balls of 1.5 to 5 mm radius, where the noise is
        10 to 100 times as strong. A scan without noise stays so.
    kernel
        ``prism``, since phantoms are partial-volume voxels.
    padding
        Zero padding of the field's convolution.

    Raises
    ------
    ValueError
        If a voxel edge is outside 0.05 to 10 mm, a direction is none, noise is not two increasing
        positive numbers, a share is not from 0 to 1, or another parameter is out of its range.
    """

    voxel_sizes: int = 64
    voxel_size: Sequence[float] | None = None
    isotropic: float = 0.4
    tilt: float = 180.0
    axial: float = 0.4
    b0_dir: Sequence[float] | None = None
    noise: Sequence[float] = (1e-4, 1e-2)
    noise_free: float = 0.15
    strongly_noisy: float = 0.1
    unmasked: float = 0.1
    voids: float = 0.3
    kernel: Kernel = "prism"
    padding: float = 2.0

    def __post_init__(self) -> None:
        for name in _SHARES:
            _check_number(name, getattr(self, name), 0.0, 1.0)
        _check_number("tilt", self.tilt, 0.0, _LARGEST_CONE)
        _check_number("padding", self.padding, 1.0, 8.0)
        if type(self.voxel_sizes) is not int or self.voxel_sizes < 1:
            raise ValueError(f"voxel_sizes must be a whole number from 1, got {self.voxel_sizes}")
        if self.kernel not in get_args(Kernel):
            names = " or ".join(get_args(Kernel))
            raise ValueError(f"kernel must be {names}, got {self.kernel}")
        low, high = _numbers("noise", self.noise, 2)
        if not 0 < low <= high <= _LARGEST_NOISE:
            problem = f"noise {list(self.noise)} is not two numbers, 0 < low <= high <= 1 ppm"
            raise ValueError(f"{problem} (noise_free=1 draws none)")
        self._check_geometry()

    def _check_geometry(self) -> None:
        size = (1.0, 1.0, 1.0) if self.voxel_size is None else self.voxel_size
        direction = (0.0, 0.0, 1.0) if self.b0_dir is None else self.b0_dir
        dx, dy, dz = _numbers("voxel_size", size, 3)
        bx, by, bz = _numbers("b0_dir", direction, 3)
        Geometry((dx, dy, dz), (bx, by, bz))

    def sizes(self, seed: int) -> list[Triple]:
        """Every voxel size in mm that `draw_voxel_size` can return."""
        if self.voxel_size is not None:
            x, y, z = (float(v) for v in self.voxel_size)
            return [(x, y, z)]
        return voxel_size_list(seed, self.voxel_sizes, self.isotropic)

    @property
    def largest_tilt(self) -> float:
        """Largest angle in degrees between B0 and the third axis that `draw` can return."""
        if self.b0_dir is not None:
            cosine = abs(self.b0_dir[2]) / math.hypot(*self.b0_dir)
            return round(math.degrees(math.acos(min(1.0, cosine))), 2)
        return 0.0 if self.axial >= 1 else self.tilt

    def draw_voxel_size(self, rng: np.random.Generator, seed: int) -> Triple:
        """Return the fixed voxel size, or one of the run's list, in mm."""
        sizes = self.sizes(seed)
        # a fixed size draws no random number
        return sizes[0] if self.voxel_size is not None else sizes[int(rng.integers(len(sizes)))]

    def draw(self, rng: np.random.Generator) -> Record:
        """Draw B0 direction and noise."""
        return {
            "b0_dir": self._draw_direction(rng),
            "noise": self._draw_noise(rng),
            "unmasked": bool(rng.random() < self.unmasked),
            "voids": self._draw_voids(rng),
        }

    def _draw_direction(self, rng: np.random.Generator) -> list[float]:
        if self.b0_dir is not None:
            return [float(c) for c in self.b0_dir]
        if rng.random() < self.axial:
            return [0.0, 0.0, 1.0]
        if self.tilt >= _LARGEST_CONE:
            rows = random_rotation(rng)
            return [float(c) for c in np.array(rows) @ [0.0, 0.0, 1.0]]
        angle, turn = math.radians(rng.uniform(0, self.tilt)), rng.uniform(0, 2 * math.pi)
        x, y = math.sin(angle) * math.cos(turn), math.sin(angle) * math.sin(turn)
        return [x, y, math.cos(angle)]

    def _draw_noise(self, rng: np.random.Generator) -> Record:
        kind = rng.random()
        level = log_uniform(rng, self.noise[0], self.noise[1])
        if kind < self.noise_free:
            level = 0.0
        elif kind < self.noise_free + self.strongly_noisy:
            level = self.noise[1] * uniform(rng, (1.0, STRONGEST_NOISE))
        varies = bool(rng.random() < 0.5)
        return {
            "level": level,
            "variation": uniform(rng, (0.1, 0.5)) if varies else 0.0,
            "seed": draw_seed(rng),
        }

    def _draw_voids(self, rng: np.random.Generator) -> list[Record]:
        n = int(rng.integers(1, 7)) if rng.random() < self.voids else 0
        return [
            {
                # shares of the field of view, whose size a measurement does not know
                "centre": rng.uniform(-0.4, 0.4, 3).tolist(),
                "radius": uniform(rng, (1.5, 5.0)),
                "factor": log_uniform(rng, 10.0, 100.0),
            }
            for _ in range(n)
        ]


def _check_number(name: str, value: object, low: float, high: float) -> None:
    # NaN is in no range
    if not isinstance(value, Real) or isinstance(value, bool) or not low <= float(value) <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {value}")


def _numbers(name: str, values: object, n: int) -> list[float]:
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if len(listed) != n or not all(isinstance(v, Real) for v in listed):
        raise ValueError(f"{name} must be a list of {n} numbers, got {values}")
    return [float(v) for v in listed]


def voxel_size_list(
    seed: int, n: int, isotropic: float, in_plane: Sequence[float] = (0.5, 1.6)
) -> list[Triple]:
    """Return ``n`` voxel sizes in mm.

    1 mm isotropic for the share ``isotropic``; else ``in_plane`` in mm, slices up to three times as
    thick but no more than 3 mm, rounded to 0.05 mm.
    """
    rng = item_generator(seed, "voxel sizes", 0)
    sizes: list[Triple] = [(1.0, 1.0, 1.0)] * round(n * isotropic)
    while len(sizes) < n:
        edge = log_uniform(rng, in_plane[0], in_plane[1])
        ratio = log_uniform(rng, 0.85, 1.15)
        thickness = min(3.0, edge * log_uniform(rng, 1.0, 3.0))
        x, y, z = (round(20 * v) / 20 for v in (edge, min(3.0, edge * ratio), thickness))
        sizes.append((x, y, z))
    return sizes


def noise_map(record: Record, grid: Grid, voids: Sequence[Record] = ()) -> Float[Tensor, "x y z"]:
    """Render the standard deviation in ppm.

    It is constant, or smooth as coil sensitivity makes it; in signal voids it is many times as
    large. Where voids overlap the stronger one counts.
    """
    deviation = torch.full(grid.shape, float(record["level"]), device=grid.device)
    if record["level"] == 0:
        return deviation
    if record["variation"] != 0:
        half = max(grid.extent) / 2
        smooth = lattice_noise(record["seed"] + 1, half / 2, grid.points(), extent=half * 1.01)
        deviation *= torch.exp(record["variation"] * smooth)
    return deviation * _gain_of_voids(voids, grid)


def _gain_of_voids(voids: Sequence[Record], grid: Grid) -> Float[Tensor, "x y z"]:
    gain = torch.ones(grid.shape, device=grid.device)
    for void in voids:
        centre = [c * e for c, e in zip(void["centre"], grid.extent, strict=True)]
        window = grid.window(centre, void["radius"])
        middle = torch.tensor(centre, device=grid.device).reshape(3, 1, 1, 1)
        inside = (grid.points(window) - middle).square().sum(0) <= void["radius"] ** 2
        gain[window] = torch.where(inside, gain[window].clamp_min(void["factor"]), gain[window])
    return gain


def add_noise(
    field: Float[Tensor, "x y z"], deviation: Float[Tensor, "x y z"], seed: int
) -> Float[Tensor, "x y z"]:
    """Add white noise of standard deviation ``deviation`` (ppm), before any masking."""
    return field + deviation * white_noise(seed, tuple(field.shape), field.device)


def local_fields(
    chi: Float[Tensor, "batch x y z"],
    mask: Bool[Tensor, "batch x y z"],
    geometries: Sequence[Geometry],
    kernel: Kernel = "prism",
    padding: float = 2.0,
) -> Float[Tensor, "batch x y z"]:
    """Field in ppm of the susceptibility inside the mask, on the whole grid, one geometry an item.

    ``padding`` is the factor of the zero padding; one batched convolution.
    """
    shape = (chi.shape[-3], chi.shape[-2], chi.shape[-1])
    dipole = Dipole(shape, geometries, kernel, padding, device=chi.device)
    return dipole.forward(chi * mask)
