"""Random fields with a power-law spectrum: smooth gradients that solids lack."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.masks import draw_blob_mask, render_blob_mask
from qsmnet.simulate.phantom import Phantom, Record
from qsmnet.simulate.randomness import draw_seed, log_uniform, uniform, white_noise


@dataclass(frozen=True)
class RandomFields:
    """Gaussian field of spectrum ``|k|^-exponent``, as it is or cut into levels.

    A network's range over gradients decides whether it underestimates at other voxel sizes (Jung
    et al., ISMRM 2021, 3977), so that training needs more than piecewise constant objects.

    Parameters
    ----------
    exponent
        Range of the amplitude's exponent.
    strength
        Smallest and largest standard deviation in ppm, log-uniform.
    levels
        Largest number of levels of a piecewise constant field; half of the phantoms are.
    """

    exponent: Sequence[float] = (1.5, 3.5)
    strength: Sequence[float] = (0.02, 0.3)
    levels: int = 8

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Draw seed, spectrum, levels and mask."""
        return {
            "seed": draw_seed(rng),
            "exponent": uniform(rng, self.exponent),
            "strength": log_uniform(rng, self.strength[0], self.strength[1]),
            "levels": (
                rng.normal(size=int(rng.integers(3, self.levels + 1))).tolist()
                if rng.random() < 0.5
                else None
            ),
            "mask": draw_blob_mask(rng, grid),
        }

    def render(self, record: Record, grid: Grid) -> Phantom:
        """Filter white noise; cut it at its quantiles where levels are given."""
        field = power_law_field(record["seed"], record["exponent"], grid)
        if record["levels"] is not None:
            values = torch.tensor(record["levels"], device=grid.device)
            # equal shares of the volume; a tenth of the voxels is sample enough for the quantiles
            sample = field.flatten()[::11].sort().values
            steps = torch.arange(1, len(values), device=grid.device) * len(sample) // len(values)
            field = values[torch.bucketize(field, sample[steps])]
        chi = record["strength"] * (field - field.mean()) / field.std().clamp_min(1e-6)
        mask = render_blob_mask(record["mask"], grid)
        return Phantom(chi, mask, torch.zeros(grid.shape, dtype=torch.uint8, device=grid.device))


def power_law_field(seed: int, exponent: float, grid: Grid) -> Float[Tensor, "x y z"]:
    """Noise whose Fourier amplitude falls as ``|k|^-exponent``, of zero mean and unit variance."""
    x, y, z = grid.shape
    noise = torch.fft.rfftn(white_noise(seed, grid.shape, grid.device))
    frequencies = (
        torch.fft.fftfreq(x, grid.voxel_size[0], device=grid.device)[:, None, None],
        torch.fft.fftfreq(y, grid.voxel_size[1], device=grid.device)[None, :, None],
        torch.fft.rfftfreq(z, grid.voxel_size[2], device=grid.device)[None, None, :],
    )
    square = frequencies[0] ** 2 + frequencies[1] ** 2 + frequencies[2] ** 2
    square[0, 0, 0] = 1.0
    amplitude = square ** (-exponent / 2)
    amplitude[0, 0, 0] = 0.0
    field: Tensor = torch.fft.irfftn(noise * amplitude, s=grid.shape)
    return field / field.std()
