"""Measurements of any clinical kind: voxels of 0.5 to 3 mm, slices mostly not far from axial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmnet.geometry import Geometry, Triple
from qsmnet.simulate.acquisition import Acquisition, voxel_size_list


@dataclass(frozen=True)
class WideAcquisition(Acquisition):
    """`Acquisition` with a range of voxel sizes, and directions of B0 as they occur.

    Parameters
    ----------
    in_plane
        Range in mm of the voxel's edge in plane, log-uniform; slices are up to three times as
        thick but no more than 3 mm.
    cone
        Angle in degrees between B0 and the third axis within which many scans lie.
    near
        Share of scans with B0 uniform over that cone; of the others ``axial`` have it along the
        third axis and the rest anywhere up to ``tilt``.
    always
        Voxel sizes in mm of common protocols, which are in every list beside the random ones.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    in_plane: Sequence[float] = (0.5, 3.0)
    cone: float = 35.0
    near: float = 0.5
    always: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = (float(edge) for edge in self.in_plane)
        if not 0.05 <= low <= high <= 3:
            problem = f"in_plane must be two increasing edges of 0.05 to 3 mm, got {self.in_plane}"
            raise ValueError(problem)
        if not 0 < self.cone <= 90 or not 0 <= self.near <= 1:
            problem = f"got {self.cone} and {self.near}"
            raise ValueError(f"cone is 0 to 90 degrees and near a share from 0 to 1, {problem}")
        for size in self.always:
            # refuses what is no voxel size
            Geometry(_triple(size), (0.0, 0.0, 1.0))

    def sizes(self, seed: int) -> list[Triple]:
        """Every voxel size in mm that can be drawn."""
        if self.voxel_size is not None:
            return super().sizes(seed)
        drawn = voxel_size_list(seed, self.voxel_sizes, self.isotropic, self.in_plane)
        return [*drawn, *map(_triple, self.always)]

    @property
    def largest_tilt(self) -> float:
        """Largest angle in degrees between B0 and the third axis that `draw` can return."""
        far = super().largest_tilt
        if self.b0_dir is not None or self.near == 0:
            return far
        near = min(self.cone, self.tilt)
        return near if self.near >= 1 else max(near, far)

    def _draw_direction(self, rng: np.random.Generator) -> list[float]:
        if self.b0_dir is not None or rng.random() >= self.near:
            return super()._draw_direction(rng)
        # equal areas of the sphere
        cosine = rng.uniform(math.cos(math.radians(min(self.cone, self.tilt))), 1)
        sine, turn = math.sqrt(1 - cosine**2), rng.uniform(0, 2 * math.pi)
        return [sine * math.cos(turn), sine * math.sin(turn), float(cosine)]


def _triple(size: Sequence[float]) -> Triple:
    if len(size) != 3:
        raise ValueError(f"always holds voxel sizes of three edges in mm, got {list(size)}")
    x, y, z = (float(edge) for edge in size)
    return x, y, z
