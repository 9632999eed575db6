r"""Gradient-echo magnitude of a scene, as it would come with the field.

.. math:: m = \left| e^{\beta + \tau}\, \frac{s_r}{c}\, e^{-\rho |\chi|} + n \right|

with the signal s of a tissue by proton density and T1, what the susceptibility takes of it by the
echo time, sensitivity 1/c of the coils, :math:`\beta` and :math:`\tau` smooth noise that
susceptibility has no part in, and complex noise n: the brightest tissue is about 1. Where the noise
of the field was drawn by signals (`SignalNoise`), c and s are those, and a signal void is dark.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, hypot, lerp, where
from torch.nn.functional import avg_pool3d

from qsmnet.simulate.acquisition import noise_map
from qsmnet.simulate.corruptions.corruption import Corruption
from qsmnet.simulate.corruptions.signal_noise import SignalNoise, draw_signals, signal_loss
from qsmnet.simulate.corruptions.tissue_error import regions
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.tissues import relaxivity
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import lattice_noise, uniform, white_noise
from qsmnet.simulate.scene import Scene
from qsmnet.units import radians_per_ppm

#: Range of a tissue's signal over that of the brightest.
SIGNAL = (0.3, 1.0)
#: Range of rho in 1/ppm: at 3 T and 20 ms it is 2.7.
DECAY = (0.5, 8.0)
#: Ranges of the standard deviations of beta (a quarter of the grid wide) and of tau.
BIAS, TEXTURE = (0.0, 0.4), (0.01, 0.1)
#: Range of the correlation length of tau, over the grid's largest extent.
SPACING = (0.04, 0.15)
#: Range of the share of its neighbours' signal that a voxel has, by partial volume.
BLUR = (0.0, 0.7)
#: Range of what is left of the signal where the field within the mask is not known.
LEFT = (0.0, 0.5)
#: Least and largest standard deviation of n; no magnitude is free of noise.
NOISE = (0.005, 0.25)

# both grow with B0 and echo time, so that rho tells how much phase 1 ppm has made
_RADIANS = radians_per_ppm(1.0, 3.0) / relaxivity(3.0)


def draw_magnitude(rng: np.random.Generator) -> Record:
    """Draw everything random about one magnitude, as plain JSON."""
    ranges = {"bias": BIAS, "texture": TEXTURE, "spacing": SPACING, "blur": BLUR, "left": LEFT}
    drawn = {name: uniform(rng, bounds) for name, bounds in ranges.items()}
    return {"signals": draw_signals(rng, SIGNAL, DECAY), **drawn}


def render_magnitude(
    record: Record, scene: Scene, corruptions: Mapping[str, Corruption]
) -> Float[Tensor, "x y z"]:
    """Magnitude of a record, zero outside the mask.

    Parameters
    ----------
    record
        Of `draw_magnitude`.
    scene
        What was measured.
    corruptions
        Those of its simulator.
    """
    signals = _signals_of_noise(scene, corruptions)
    tissue = regions(scene) if signals is None else scene.segmentation
    signals = record["signals"] if signals is None else signals
    signal = _smooth(record, scene) / signal_loss(signals, scene, tissue)
    signal = where(scene.field_support, signal, record["left"] * signal)
    signal = _blurred(signal, scene.mask, record["blur"])
    least, largest = NOISE
    thermal = scene.record["acquisition"]["noise"]["level"] * _RADIANS * signals["decay"]
    deviation, seed = min(max(thermal, least), largest), record["signals"]["seed"]
    noise = [white_noise(seed + i, tuple(signal.shape), signal.device) for i in range(2)]
    return hypot(signal + deviation * noise[0], deviation * noise[1]) * scene.mask


def _signals_of_noise(scene: Scene, corruptions: Mapping[str, Corruption]) -> Record | None:
    """Record of signals that the noise of the field follows."""
    drawn = scene.record.get("corruptions", {}).items()
    return next((each for k, each in drawn if isinstance(corruptions[k], SignalNoise)), None)


def _smooth(record: Record, scene: Scene) -> Float[Tensor, "x y z"]:
    """Sensitivity of the coils, that of the noise and one more, and texture."""
    x, y, z = scene.mask.shape
    grid = Grid((x, y, z), scene.geometry.voxel_size, scene.mask.device)
    acquisition, seed = scene.record["acquisition"], record["signals"]["seed"]
    extent = max(grid.extent)
    bias = record["bias"] * lattice_noise(seed + 2, 0.25 * extent, grid.points(), 0.51 * extent)
    spacing = record["spacing"] * extent
    texture = record["texture"] * lattice_noise(seed + 3, spacing, grid.points(), 0.51 * extent)
    noise = {**acquisition["noise"], "level": 1.0}
    # older records know no voids
    smooth: Tensor = (bias + texture).exp() / noise_map(noise, grid, acquisition.get("voids", ()))
    return smooth


def _blurred(
    signal: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"], share: float
) -> Float[Tensor, "x y z"]:
    """Mix a voxel with the mean of those around it that are in the mask."""
    total, count = (
        avg_pool3d(volume[None], 3, stride=1, padding=1)[0]
        for volume in (signal * mask, mask.to(signal))
    )
    return lerp(signal, total / count.clamp_min(1e-6), share)
