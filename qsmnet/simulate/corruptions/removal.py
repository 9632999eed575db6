"""A background field, taken off again by the project's own methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.background.removal import BackgroundRemoval
from qsmnet.errors import InconsistentError
from qsmnet.simulate.corruptions.corruption import Forward, check_share, known_outside, rms
from qsmnet.simulate.corruptions.remainder import Remainder, polynomial
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import log_uniform
from qsmnet.simulate.scene import Scene
from qsmnet.volumes import TotalField

# the mask must keep this share of its voxels
_LEAST = 0.25


@dataclass(frozen=True)
class Removal:
    """Local field with a background of sources outside and of shims, after a background removal.

    What is left is what the methods leave: their share of the local field, which they take for
    background, their errors at the rim, and their mask. Fields that are known outside of the mask
    have no background to be taken off and stay as they are.

    Parameters
    ----------
    methods
        By name, background removals; one is drawn.
    probability
        Share of scans.
    strength
        Range of the background's root mean square in the mask over that of the field, log-uniform.
    """

    methods: Mapping[str, BackgroundRemoval]
    probability: float = 0.15
    strength: Sequence[float] = (2.0, 20.0)

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        if not self.methods:
            raise ValueError("methods must name one background removal at least")
        if not 0 < self.strength[0] <= self.strength[1]:
            raise ValueError(f"strength must be two increasing numbers, got {list(self.strength)}")

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Draw the method, the sources outside and the shim."""
        if rng.random() >= self.probability:
            return None
        shim = Remainder(probability=1.0, degree=3).draw(rng)
        return {
            "method": str(rng.choice(sorted(self.methods))),
            "strength": log_uniform(rng, self.strength[0], self.strength[1]),
            "terms": [] if shim is None else shim["terms"],
            # of air, bone and fat, as shares of the field of view
            "sources": [
                {
                    "centre": rng.uniform(-0.5, 0.5, 3).tolist(),
                    "radius": log_uniform(rng, 0.05, 0.25),
                    "chi": float(rng.choice([9.4, -2.2, 0.6])),
                }
                for _ in range(int(rng.integers(2, 9)))
            ],
        }

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:
        """Add the background and take it off; one convolution and the method's."""
        if known_outside(scene):
            return scene
        background = _background(record, scene, forward)
        total = TotalField(
            (scene.local_field + background) * scene.field_support,
            scene.field_support,
            scene.geometry,
            noise=scene.noise,
        )
        try:
            local = self.methods[record["method"]](total)
        except InconsistentError:
            # a mask too small for it
            return scene
        known = local.mask & scene.mask
        if int(known.sum()) < _LEAST * int(scene.mask.sum()):
            return scene
        return replace(
            scene,
            chi=scene.chi * known,
            mask=known,
            segmentation=scene.segmentation * known,
            local_field=local.field * known,
            field_support=known,
        )


def _background(record: Record, scene: Scene, forward: Forward) -> Float[Tensor, "x y z"]:
    sources = _scaled(forward(_sources(record["sources"], scene)), scene)
    shim = _scaled(polynomial(record["terms"], scene), scene)
    wanted: float = record["strength"] * rms(scene.local_field_exact, scene.mask)
    return _scaled(sources + 0.5 * shim, scene) * wanted


def _scaled(field: Tensor, scene: Scene) -> Tensor:
    size = rms(field, scene.mask)
    return field / size if size > 0 else field


def _sources(records: Sequence[Record], scene: Scene) -> Float[Tensor, "x y z"]:
    """Susceptibility of balls that lie outside of the mask."""
    x, y, z = scene.mask.shape
    grid = Grid((x, y, z), scene.geometry.voxel_size, scene.mask.device)
    chi = torch.zeros(x, y, z, device=grid.device)
    for each in records:
        centre = [c * e for c, e in zip(each["centre"], grid.extent, strict=True)]
        radius = each["radius"] * min(grid.extent)
        window = grid.window(centre, radius)
        middle = torch.tensor(centre, device=grid.device).reshape(3, 1, 1, 1)
        inside = (grid.points(window) - middle).square().sum(0) <= radius**2
        chi[window] = torch.where(inside, each["chi"], chi[window])
    return torch.where(scene.mask, 0.0, chi)
