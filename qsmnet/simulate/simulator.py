"""Draw -> record -> render for whole scenes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from qsmnet.geometry import Geometry, Triple
from qsmnet.simulate.acquisition import Acquisition, add_noise, local_fields, noise_map
from qsmnet.simulate.corruptions.corruption import Corruption
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Phantom, Record, Source
from qsmnet.simulate.randomness import item_generator
from qsmnet.simulate.scene import Scene


@dataclass(frozen=True)
class Simulator:
    """A mixture of sources seen through one kind of acquisition.

    Parameters
    ----------
    sources
        By name, what draws phantoms.
    weights
        By name, how often; equal when left out.
    acquisition
        Voxel sizes, B0 directions and noise.
    shape
        Voxels along x, y, z.
    same_extent
        Whether the field of view keeps its proportions in mm: thick slices then are fewer, at about
        the same number of voxels. Scenes of different voxel sizes differ in shape.
    device
        Where scenes are rendered; random numbers are drawn on the CPU.
    corruptions
        By name, what is wrong with a measurement, in the order in which it happens. They change no
        phantom, so that banks do not depend on them.

    Raises
    ------
    ValueError
        If the shape is not three whole numbers of at least 8, weights and sources differ in their
        names, a weight is negative or all are 0, or the device cannot be used.
    """

    sources: Mapping[str, Source]
    weights: Mapping[str, float] | None = None
    acquisition: Acquisition = field(default_factory=Acquisition)
    shape: Sequence[int] = (64, 64, 64)
    same_extent: bool = False
    device: str = "cpu"
    corruptions: Mapping[str, Corruption] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        sizes = self.shape if isinstance(self.shape, Sequence) else ()
        if len(sizes) != 3 or not all(type(n) is int and n >= 8 for n in sizes):
            raise ValueError(f"shape needs three sizes of at least 8, got {self.shape}")
        if self.same_extent not in (True, False):
            raise ValueError(f"same_extent must be true or false, got {self.same_extent}")
        if self.weights is not None:
            _check_weights(self.weights, self.sources)
        _check_device(self.device)

    def draw(self, seed: int, split: str, index: int) -> Record:
        """Draw the record of item ``index`` of ``split``, as plain JSON."""
        rng = item_generator(seed, split, index)
        voxel_size = self.acquisition.draw_voxel_size(rng, seed)
        name = self._draw_source(rng)
        x, y, z = self._shape(voxel_size)
        grid = Grid((x, y, z), voxel_size, self.device)
        return {
            "seed": seed,
            "split": split,
            "index": index,
            "shape": [x, y, z],
            "voxel_size": list(voxel_size),
            "source": name,
            "phantom": self.sources[name].draw(rng, grid),
            **self.draw_measurement(rng),
        }

    def draw_measurement(self, rng: np.random.Generator) -> Record:
        """Draw how a phantom is measured: a part of its record that may be drawn again."""
        measurement: Record = {"acquisition": self.acquisition.draw(rng)}
        if self.corruptions:
            drawn = {name: each.draw(rng) for name, each in self.corruptions.items()}
            measurement["corruptions"] = {k: v for k, v in drawn.items() if v is not None}
        return measurement

    @property
    def materials(self) -> list[dict[str, str]]:
        """What the sources are made of that is no code, such as label maps."""
        return [each for s in self.sources.values() for each in getattr(s, "materials", ())]

    def phantom(self, record: Record) -> Phantom:
        """Render the susceptibility of a record, without a measurement."""
        phantom = self.sources[record["source"]].render(record["phantom"], self.grid(record))
        return replace(phantom, chi=phantom.chi * phantom.mask)

    def grid(self, record: Record) -> Grid:
        """Grid of a record; another shape or voxel size there renders the same brain elsewhere."""
        x, y, z = record["shape"]
        dx, dy, dz = record["voxel_size"]
        return Grid((x, y, z), (dx, dy, dz), self.device)

    def shapes(self, seed: int) -> set[tuple[int, int, int]]:
        """Every shape that a scene of this seed can have."""
        return {self._shape(size) for size in self.acquisition.sizes(seed)}

    def render(self, record: Record) -> Scene:
        """Render the scene of a record."""
        return self.render_batch([record])[0]

    def scene(self, seed: int, index: int, split: str = "test") -> Scene:
        """Draw and render one item."""
        return self.render(self.draw(seed, split, index))

    def render_batch(self, records: Sequence[Record]) -> list[Scene]:
        """Render scenes of equal shape; one batched convolution for all fields."""
        phantoms = [self.phantom(record) for record in records]
        return self.measure(phantoms, records)

    def measure(self, phantoms: Sequence[Phantom], records: Sequence[Record]) -> list[Scene]:
        """Compute fields, noise and corruptions of phantoms that are there already."""
        geometries = [geometry_of(record) for record in records]
        exact = local_fields(
            torch.stack([p.chi for p in phantoms]),
            torch.stack([p.mask for p in phantoms]),
            geometries,
            self.acquisition.kernel,
            self.acquisition.padding,
        )
        return [
            self._corrupted(self._with_noise(phantom, field_, record, geometry))
            for phantom, field_, record, geometry in zip(
                phantoms, exact, records, geometries, strict=True
            )
        ]

    def _with_noise(
        self, phantom: Phantom, exact: torch.Tensor, record: Record, geometry: Geometry
    ) -> Scene:
        acquisition = record["acquisition"]
        noise = acquisition["noise"]
        # older records know no voids
        deviation = noise_map(noise, self.grid(record), acquisition.get("voids", ()))
        support = torch.ones_like(phantom.mask) if acquisition["unmasked"] else phantom.mask
        return Scene(
            chi=phantom.chi,
            mask=phantom.mask,
            segmentation=phantom.segmentation,
            local_field=add_noise(exact, deviation, noise["seed"]) * support,
            local_field_exact=exact,
            noise=deviation,
            field_support=support,
            geometry=geometry,
            record=record,
            kernel=self.acquisition.kernel,
        )

    def _corrupted(self, scene: Scene) -> Scene:
        def forward(chi: torch.Tensor) -> torch.Tensor:
            kernel, padding = self.acquisition.kernel, self.acquisition.padding
            everywhere = torch.ones_like(chi, dtype=torch.bool)
            geometry = [scene.geometry]
            return local_fields(chi[None], everywhere[None], geometry, kernel, padding)[0]

        for name, record in scene.record.get("corruptions", {}).items():
            scene = self.corruptions[name].apply(record, scene, forward)
        return scene

    def _shape(self, voxel_size: Triple) -> tuple[int, int, int]:
        x, y, z = (int(n) for n in self.shape)
        if not self.same_extent:
            return x, y, z
        mean = math.prod(voxel_size) ** (1 / 3)
        sizes = (2 * round(n * mean / d / 2) for n, d in zip((x, y, z), voxel_size, strict=True))
        x, y, z = (max(8, n) for n in sizes)
        return x, y, z

    def _draw_source(self, rng: np.random.Generator) -> str:
        names = sorted(self.sources)
        weights = np.array([1.0 if self.weights is None else self.weights[n] for n in names])
        return str(rng.choice(names, p=weights / weights.sum()))


def _check_weights(weights: Mapping[str, float], sources: Mapping[str, Source]) -> None:
    if set(weights) != set(sources):
        raise ValueError(f"weights {sorted(weights)} are not of {sorted(sources)}")
    values = list(weights.values())
    usable = all(isinstance(v, (int, float)) and 0 <= v < math.inf for v in values)
    if not usable or sum(values) <= 0:
        raise ValueError(f"weights must be numbers from 0, not all 0, got {dict(weights)}")


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device} cannot be used here: {reason}") from error


def geometry_of(record: Record) -> Geometry:
    """Voxel size and B0 direction of a record."""
    dx, dy, dz = record["voxel_size"]
    bx, by, bz = record["acquisition"]["b0_dir"]
    return Geometry((dx, dy, dz), (bx, by, bz))
