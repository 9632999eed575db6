"""Masks that lost their rim, as background removal and careful brain extraction leave them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmnet.simulate.corruptions.corruption import (
    Forward,
    check_share,
    known_outside,
    with_mask,
)
from qsmnet.simulate.masks import erode
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.scene import Scene

# a smaller part of the mask teaches nothing
_LEAST = 0.25


@dataclass(frozen=True)
class Erosion:
    """One to five layers of voxels off the mask.

    Parameters
    ----------
    probability
        Share of scans with any.
    layers
        Fewest and most; fewer where not a quarter of the mask would be left.
    leak
        Share of these whose rim still is a source of the field, which is harmonic in the mask then;
        else background removal took its field away. A field that is known outside does not leak.
    """

    probability: float = 0.5
    layers: Sequence[int] = (1, 5)
    leak: float = 0.3

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        check_share("leak", self.leak)
        if not 1 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f"layers must be two numbers from 1, got {list(self.layers)}")

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Draw how many layers, and whether they leak."""
        if rng.random() >= self.probability:
            return None
        layers = int(rng.integers(self.layers[0], self.layers[1] + 1))
        return {"layers": layers, "leak": bool(rng.random() < self.leak)}

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:
        """Erode; one convolution unless the rim leaks."""
        least = _LEAST * int(scene.mask.sum())
        eroded = (erode(scene.mask, n) for n in range(record["layers"], 0, -1))
        mask = next((each for each in eroded if int(each.sum()) >= least), scene.mask)
        leak = record["leak"] and not known_outside(scene)
        return with_mask(scene, mask, None if leak else forward(scene.chi * ~mask))
