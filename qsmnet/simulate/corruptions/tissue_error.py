"""Errors of the field that have the shape of tissue: microstructure, exchange, unwrapping."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qsmnet.simulate import tissue
from qsmnet.simulate.corruptions.corruption import Forward, check_share, rms, with_field
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import draw_seed, lattice_noise, uniform
from qsmnet.simulate.scene import Scene

_REGIONS = 32
# of a phantom without labels, by susceptibility
_LEVELS = 8
#: Kinds of error, each drawn with a weight of its own.
KINDS = ("offsets", "offsets_through_d", "smooth", "edges", "fibres", "fibres_through_d")


@dataclass(frozen=True)
class TissueError:
    r"""Errors that a real field has and no sum of scalar dipoles explains.

    A weighted sum, of which every part has the root mean square 1 in the mask:

    ``offsets``, ``offsets_through_d``
        A number for every tissue, added to the field (exchange, :math:`f = \sum o_i r_i`) or to the
        susceptibility (:math:`f = D\sum o_i r_i`): what a scan sees that differs from the truth.
    ``smooth``
        Smooth noise times such numbers.
    ``edges``
        Noise where susceptibility changes, as motion, partial volume and unwrapping leave it.
    ``fibres``, ``fibres_through_d``
        In white matter alone, :math:`(u \cdot b_0)^2 - 1/3` with u a smooth field of fibre
        directions: generalised Lorentzian offsets (He & Yablonskiy 2009, 10.1073/pnas.0904899106)
        and, through D, anisotropic susceptibility (Liu 2010, 10.1002/mrm.22482).

    Tissues are the labels of a phantom, or levels of its susceptibility where it has none. The
    noise that is told grows by the error's root mean square, in quadrature, so that a network knows
    how far to trust the field.

    Parameters
    ----------
    probability
        Share of scans with any.
    strength
        Range of the root mean square in the mask, over that of the field.
    """

    probability: float = 0.5
    strength: Sequence[float] = (0.0, 0.5)

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        if not 0 <= self.strength[0] <= self.strength[1]:
            raise ValueError(f"strength must be two increasing numbers, got {list(self.strength)}")

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Draw the strength, some of the kinds with their weights, and what is in them."""
        if rng.random() >= self.probability:
            return None
        present = rng.permutation(len(KINDS))[: int(rng.integers(1, len(KINDS) + 1))]
        weights = {KINDS[i]: float(rng.uniform(0.2, 1)) for i in sorted(present.tolist())}
        return {
            "strength": uniform(rng, self.strength),
            "weights": weights,
            "offsets": {name: rng.normal(size=_REGIONS).tolist() for name in KINDS},
            "seed": draw_seed(rng),
            "spacing": uniform(rng, (0.05, 0.25)),
        }

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:
        """Add the error, and its root mean square to the noise that is told; one convolution."""
        error = _error(record, scene, forward)
        size = rms(error, scene.mask)
        wanted = record["strength"] * rms(scene.local_field_exact, scene.mask)
        if size == 0 or wanted == 0:
            return scene
        noise = (scene.noise.square() + wanted**2).sqrt()
        return replace(with_field(scene, error * (wanted / size)), noise=noise)


def _error(record: Record, scene: Scene, forward: Forward) -> Float[Tensor, "x y z"]:
    weights = record["weights"]
    through = {kind: weight for kind, weight in weights.items() if kind.endswith("_through_d")}
    direct = {kind: weight for kind, weight in weights.items() if kind not in through}
    patterns = _Patterns(record, scene)
    error = patterns.sum_of(direct)
    if through:
        # one convolution for all that goes through D
        field = forward(patterns.sum_of(through))
        size = rms(field, scene.mask)
        error += field * (math.hypot(*through.values()) / size if size > 0 else 0.0)
    return error


@dataclass(frozen=True)
class _Patterns:
    """The kinds of error, of a record in a scene."""

    record: Record
    scene: Scene

    def sum_of(self, weights: Mapping[str, float]) -> Tensor:
        """Sum of kinds, each of root mean square 1 times its weight."""
        total = torch.zeros_like(self.scene.chi)
        for kind, weight in weights.items():
            pattern = getattr(self, f"_{kind.removesuffix('_through_d')}")(kind)
            size = rms(pattern, self.scene.mask)
            if size > 0:
                total += pattern * (weight / size)
        return total

    def _offsets(self, kind: str) -> Tensor:
        values = torch.tensor(self.record["offsets"][kind], device=self.scene.chi.device)
        return values[regions(self.scene)] * self.scene.mask

    def _smooth(self, kind: str) -> Tensor:
        return self._noise(0) * (1 + self._offsets(kind)) * self.scene.mask

    def _edges(self, kind: str) -> Tensor:
        volume = self._offsets(kind)
        steps = torch.stack(torch.gradient(volume)).square().sum(0).sqrt()
        return steps * self._noise(1) * self.scene.mask

    def _fibres(self, kind: str) -> Tensor:
        # a direction of its own for either kind
        first = 2 if kind == "fibres" else 5
        along = torch.stack([self._noise(first + axis) for axis in range(3)])
        along = along / along.square().sum(0).sqrt().clamp_min(1e-6)
        b0 = torch.tensor(self.scene.geometry.b0_dir, device=along.device, dtype=along.dtype)
        cosine = torch.einsum("i,ixyz->xyz", b0, along)
        return (cosine.square() - 1 / 3) * (self.scene.segmentation == tissue.WHITE_MATTER)

    def _noise(self, number: int) -> Tensor:
        x, y, z = self.scene.chi.shape
        grid = Grid((x, y, z), self.scene.geometry.voxel_size, self.scene.chi.device)
        extent = max(grid.extent)
        spacing = self.record["spacing"] * extent
        return lattice_noise(self.record["seed"] + number, spacing, grid.points(), 0.51 * extent)


def regions(scene: Scene) -> Int[Tensor, "x y z"]:
    """Labels, or levels of susceptibility with equal numbers of voxels."""
    if bool((scene.segmentation > 0).any()):
        return scene.segmentation.long().clamp_max(_REGIONS - 1)
    values = scene.chi[scene.mask].sort().values
    at = torch.arange(1, _LEVELS, device=values.device) * len(values) // _LEVELS
    return torch.bucketize(
        scene.chi.contiguous(), torch.tensor(sorted({*values[at].tolist()}), device=values.device)
    )
