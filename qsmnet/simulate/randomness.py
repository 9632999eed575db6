"""Random numbers that depend on (seed, split, item) alone, not on worker count or batch size."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_LARGEST_SEED = 2**31 - 1


def item_generator(seed: int, split: str, index: int) -> np.random.Generator:
    """Return the generator of item ``index`` of ``split``; splits never share a stream."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def draw_seed(rng: np.random.Generator) -> int:
    """Draw an integer for a record, from which rendering makes its noise."""
    return int(rng.integers(_LARGEST_SEED))


def white_noise(seed: int, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return standard normal float32 values, from the CPU so that a GPU renders the same item."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def uniform(rng: np.random.Generator, bounds: Sequence[float]) -> float:
    """Draw a plain float, so that records stay JSON."""
    return float(rng.uniform(bounds[0], bounds[1]))


def random_rotation(rng: np.random.Generator) -> list[list[float]]:
    """Rotation matrix, uniform over all rotations: a uniform unit quaternion.

    A uniform axis with a uniform angle is not: it favours small angles.
    """
    quaternion = rng.normal(size=4)
    scalar, *vector = quaternion / np.linalg.norm(quaternion)
    return _rotation(np.array(vector), 2 * scalar, 2.0)


def small_rotation(rng: np.random.Generator, largest_degrees: float) -> list[list[float]]:
    """Rotation matrix about a uniform axis by a uniform angle of up to ``largest_degrees``."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(rng.uniform(-largest_degrees, largest_degrees))
    return _rotation(axis, np.sin(angle), 1 - np.cos(angle))


def _rotation(vector: np.ndarray, once: float, twice: float) -> list[list[float]]:
    # Rodrigues: the identity plus multiples of the cross product, applied once and twice
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(3) + once * cross + twice * cross @ cross
    rows: list[list[float]] = matrix.tolist()
    return rows


def lattice_noise(
    seed: int, spacing: float, points: Float[Tensor, "3 x y z"], extent: float = 120.0
) -> Float[Tensor, "x y z"]:
    """Smooth unit-variance noise at ``points`` (mm), the same function of space on every grid.

    White noise on a lattice of ``spacing`` mm over ``[-extent, extent]^3``, smoothed by a
    three-point binomial filter and interpolated linearly; correlation length about two spacings.
    """
    n = max(4, round(2 * extent / spacing) + 1)
    # smoothed before it moves: a GPU's convolutions round to ten bits
    lattice = white_noise(seed, (1, 1, n, n, n))
    taps = torch.tensor([0.25, 0.5, 0.25])
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 3
        padding = [0, 0, 0]
        padding[axis] = 1
        lattice = torch.nn.functional.conv3d(lattice, taps.reshape(shape), padding=tuple(padding))
    lattice = (lattice / lattice.std()).to(points.device)
    # grid_sample wants the last axis first and coordinates in [-1, 1]
    grid = (points / extent).flip(0).permute(1, 2, 3, 0)[None]
    sampled: Tensor = torch.nn.functional.grid_sample(
        lattice, grid, align_corners=True, padding_mode="reflection"
    )
    return sampled[0, 0]
