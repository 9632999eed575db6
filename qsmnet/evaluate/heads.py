"""Simulated heads of a study: rendered once, kept on disk, and what each stage is given of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from qsmnet.background.depth import depth_in_mask
from qsmnet.errors import UsageError
from qsmnet.io.files import atomic_write
from qsmnet.simulate import tissue
from qsmnet.simulate.head.labels import label_files
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.simulate.head.scan import HeadScan
from qsmnet.simulate.head.signal import field_noise
from qsmnet.simulate.head.simulator import HeadSimulator
from qsmnet.simulate.randomness import white_noise
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Box, LocalField, TotalField, bounding_box

#: A head of 4 mm voxels, to see whether a study runs.
TINY = Protocol((44, 60, 48), (4.0, 4.0, 4.0), 3.0, (0.004, 0.010, 0.016), 0.03, 15.0)


@dataclass(frozen=True)
class Condition:
    """How heads are scanned.

    Parameters
    ----------
    name
        Of the table's column.
    protocol
        Name of its config.
    lesions
        As of `HeadSimulator`.
    snr
        In place of the protocol's, whose definition it shares.
    """

    name: str
    protocol: str
    lesions: Sequence[Mapping[str, Any]] = ()
    snr: float | None = None

    @property
    def kind(self) -> str:
        """Last part of a kept head's file name."""
        kind = "lesions" if self.lesions else "plain"
        return kind if self.snr is None else f"{kind}_snr{self.snr:g}"

    def of(self, protocol: Protocol) -> Protocol:
        """Return the protocol with this SNR."""
        return protocol if self.snr is None else replace(protocol, snr=self.snr)


@dataclass(frozen=True)
class Heads:
    """Heads by number: of a folder's label maps in the order of their names, or procedural ones.

    Parameters
    ----------
    simulator
        Its protocol, labels and lesions are replaced.
    protocols
        By name.
    seed
        Of all heads.
    labels
        Folder with label maps; None draws procedural heads.
    cache
        Folder in which rendered heads are kept, as ``<protocol>_<head>_<kind>.pt``; None renders
        anew each time.
    """

    simulator: HeadSimulator
    protocols: Mapping[str, Protocol]
    seed: int
    labels: Path | None = None
    cache: Path | None = None

    def name(self, number: int) -> str:
        """Name of a head in results and files."""
        return f"{number}" if self.labels is not None else f"procedural-{number}"

    def get(self, number: int, split: str, condition: Condition) -> HeadScan:
        """Head ``number`` under a condition, from the cache where it is there.

        Raises
        ------
        UsageError
            If the folder has fewer label maps.
        """
        simulator = self._simulator(number, condition)
        if self.cache is None:
            return simulator.scene(self.seed, number, split)
        path = self.cache / f"{condition.protocol}_{self.name(number)}_{condition.kind}.pt"
        if path.exists():
            kept = load_head(path)
            if self._is(kept, simulator, number, split):
                return kept
        scan = simulator.scene(self.seed, number, split)
        with atomic_write(path, overwrite=True) as temporary:
            torch.save(scan, temporary)
        return scan

    def _simulator(self, number: int, condition: Condition) -> HeadSimulator:
        protocol, labels = condition.of(self.protocols[condition.protocol]), self._labels(number)
        return replace(
            self.simulator, protocol=protocol, labels=labels, lesions=tuple(condition.lesions)
        )

    def _labels(self, number: int) -> str | None:
        if self.labels is None:
            return None
        files = label_files(self.labels)
        if not 1 <= number <= len(files):
            fix = f"choose --heads from 1 to {len(files)}, or another folder"
            raise UsageError("--labels", f"{self.labels} has no map {number}", fix)
        return str(files[number - 1])

    def _is(self, kept: HeadScan, simulator: HeadSimulator, number: int, split: str) -> bool:
        """Whether a file is the head that is wanted; drawing it again would take too long."""
        record = kept.record
        drawn = (record["seed"], record["split"], record["index"])
        lesions = [(each["chi"], each["radius"]) for each in record["lesions"]]
        wanted = [(each.chi, each.radius) for each in simulator.wanted_lesions]
        source = "procedural head" if simulator.labels is None else Path(simulator.labels).name
        return (
            drawn == (self.seed, split, number)
            and lesions == wanted
            and record["source"] == source
            and same_protocol(kept.protocol, simulator.protocol)
        )


def same_protocol(one: Protocol, other: Protocol) -> bool:
    """Whether two protocols are equal; a list and a tuple of the same numbers are."""
    return repr(_plain(one)) == repr(_plain(other))


def _plain(protocol: Protocol) -> list[object]:
    values = vars(protocol).items()
    return [(k, [float(x) for x in v] if isinstance(v, Sequence) else v) for k, v in values]


def load_head(path: Path) -> HeadScan:
    """Read a kept head; nothing in the file can run."""
    with torch.serialization.safe_globals([HeadScan, Protocol]):
        scan: HeadScan = torch.load(path, weights_only=True)
    return scan


@dataclass(frozen=True)
class Scene:
    """A head and what each stage is given of it.

    Parameters
    ----------
    head
        Scan and truth.
    near_air
        Distance in mm to air, of sinuses and ears too, below which a voxel is near it.
    margin
        Voxels around the brain's box that an inversion sees.
    erosion
        In mm, of the mask that local fields are compared in.
    """

    head: HeadScan
    near_air: float = 12.0
    margin: int = 8
    erosion: float = 6.0

    @cached_property
    def beside_air(self) -> Bool[Tensor, "x y z"]:
        """Brain near air."""
        solid = (self.head.segmentation != tissue.AIR).numpy()
        distance = ndimage.distance_transform_edt(solid, sampling=self.head.geometry.voxel_size)
        return torch.from_numpy(distance < self.near_air) & self.head.mask

    @cached_property
    def inner(self) -> Bool[Tensor, "x y z"]:
        """The mask that local fields are compared in."""
        return depth_in_mask(self.head.mask, self.head.geometry) > self.erosion

    @cached_property
    def box(self) -> Box:
        """The brain's box and a margin."""
        return self.box_around(self.head.mask)

    @cached_property
    def noise_pattern(self) -> Float[Tensor, "x y z"]:
        """White noise of unit variance; times the scan's own it is that of the fields."""
        # the signal's own noise has taken two seeds
        return white_noise(self.head.record["noise_seed"] + 2, tuple(self.head.mask.shape))

    @cached_property
    def told_noise(self) -> Float[Tensor, "x y z"]:
        """Standard deviation of the field as a user knows it: from magnitudes with noise.

        That of the exact magnitude would tell of susceptibility what no scan does.
        """
        head = self.head
        if head.signal_noise == 0:
            return head.noise
        return field_noise(head.magnitude, head.signal_noise, head.protocol)

    def box_around(self, mask: Bool[Tensor, "x y z"]) -> Box:
        """Box of a mask and a margin."""
        x, y, z = (
            slice(max(0, part.start - self.margin), min(n, part.stop + self.margin))
            for part, n in zip(bounding_box(mask), mask.shape, strict=True)
        )
        return x, y, z

    def total_field(self) -> TotalField:
        """Return the true total field with the scan's noise, known in the brain."""
        return TotalField(
            self._noisy(self.head.total_field),
            self.head.mask,
            self.head.geometry,
            noise=self.told_noise * self.head.mask,
            magnitude=self.magnitude(),
            radians_per_ppm=self.radians_per_ppm(),
        )

    def local_field(self) -> LocalField:
        """Return the true local field with the scan's noise, known in the brain, on `box`."""
        return LocalField(
            self._noisy(self.head.local_field)[self.box],
            self.head.mask[self.box],
            self.head.geometry,
            noise=(self.told_noise * self.head.mask)[self.box],
            magnitude=self.magnitude()[self.box],
            radians_per_ppm=self.radians_per_ppm(),
        )

    def _noisy(self, exact: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        return (exact + self.head.noise * self.noise_pattern) * self.head.mask

    def magnitude(self) -> Float[Tensor, "x y z"]:
        """Root of the echoes' sum of squares."""
        return self.head.magnitude.square().sum(0).sqrt()

    def radians_per_ppm(self) -> float:
        """Phase that 1 ppm makes at the last echo."""
        return radians_per_ppm(self.head.protocol.echo_times[-1], self.head.protocol.b0)
