"""Noise as the signal has it: more where magnitude is low."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from qsmnet.simulate.corruptions.corruption import Forward, check_share, with_field
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import draw_seed, lattice_noise, uniform, white_noise
from qsmnet.simulate.scene import Scene

_LABELS = 32
# beyond this the field counts as unknown anyway
_LARGEST = 20.0
# of the texture, over the largest extent of the grid
_SPACING = (0.03, 0.15)


@dataclass(frozen=True)
class SignalNoise:
    r"""Noise over the magnitude, :math:`\sigma e^{\rho |\chi|} / m`, in place of :math:`\sigma`.

    The phase noise of a voxel is that of the image over its magnitude. m is the signal of a tissue,
    by label, and :math:`\rho |\chi|` what R2' takes of it by the echo time: 137 B0 / 3 T per second
    and ppm (`qsmnet.simulate.head.tissues.relaxivity`), 2.7 per ppm at 3 T and 20 ms. A scan
    without noise stays so.

    Parameters
    ----------
    probability
        Share of scans with such noise; the others have it the same in all tissue.
    signal
        Range of m; the brightest tissue has 1.
    decay
        Range of :math:`\rho` in 1/ppm.
    texture
        Range of the standard deviation of the logarithm of a signal that varies smoothly within
        tissue, and that susceptibility has no part in.
    told
        Range of the relative standard deviation by which the noise that is told errs from voxel to
        voxel: it is known from a magnitude with noise of its own.
    """

    probability: float = 0.5
    signal: Sequence[float] = (0.5, 1.0)
    decay: Sequence[float] = (1.0, 8.0)
    texture: Sequence[float] = (0.0, 0.0)
    told: Sequence[float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        if not 0 < self.signal[0] <= self.signal[1] <= 1:
            raise ValueError(f"signal must be two increasing shares, got {list(self.signal)}")
        if not 0 <= self.decay[0] <= self.decay[1]:
            raise ValueError(f"decay must be two increasing numbers, got {list(self.decay)}")
        for name, (low, high) in (("texture", self.texture), ("told", self.told)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} must be two increasing shares, got {[low, high]}")

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Draw signals by label, the decay, and a seed."""
        if rng.random() >= self.probability:
            return None
        return {
            **draw_signals(rng, self.signal, self.decay),
            "texture": uniform(rng, self.texture),
            "spacing": uniform(rng, _SPACING),
            "told": uniform(rng, self.told),
        }

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:  # noqa: ARG002
        """Add what is missing from the noise that is there, in quadrature."""
        gain = signal_loss(record, scene, scene.segmentation) * _texture(record, scene)
        # the brightest voxel has the noise that is there
        gain = torch.where(scene.mask, gain / gain[scene.mask].amin(), 1.0).clamp(1.0, _LARGEST)
        missing = scene.noise * (gain.square() - 1).sqrt()
        noise = white_noise(record["seed"], tuple(gain.shape), gain.device)
        wrong = record["told"] * white_noise(record["seed"] + 1, tuple(gain.shape), gain.device)
        return replace(with_field(scene, missing * noise), noise=scene.noise * gain * wrong.exp())


def draw_signals(
    rng: np.random.Generator, signal: Sequence[float], decay: Sequence[float]
) -> Record:
    """Draw a signal for every number of tissue, the decay in 1/ppm, and a seed."""
    signals = rng.uniform(signal[0], signal[1], _LABELS).tolist()
    return {"signal": signals, "decay": uniform(rng, decay), "seed": draw_seed(rng)}


def signal_loss(
    record: Record, scene: Scene, regions: Integer[Tensor, "x y z"]
) -> Float[Tensor, "x y z"]:
    """Largest signal over the signal, from 1 to 20; regions are numbers of tissue."""
    signal = torch.tensor(record["signal"], device=scene.chi.device)
    # where nothing is labelled all tissue is one
    bright = signal.max() / signal[regions.long().clamp_max(_LABELS - 1)]
    decay = (record["decay"] * scene.chi.abs()).clamp_max(math.log(_LARGEST)).exp()
    return torch.where(scene.mask, bright * decay, 1.0).clamp(1.0, _LARGEST)


def _texture(record: Record, scene: Scene) -> Float[Tensor, "x y z"]:
    x, y, z = scene.mask.shape
    grid = Grid((x, y, z), scene.geometry.voxel_size, scene.mask.device)
    extent = max(grid.extent)
    spacing = record["spacing"] * extent
    noise = lattice_noise(record["seed"] + 2, spacing, grid.points(), 0.51 * extent)
    factor: Tensor = (record["texture"] * noise).exp()
    return factor
