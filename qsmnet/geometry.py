"""Voxel size and main field direction of a grid, in the grid's own axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Triple = tuple[float, float, float]

_VOXEL_SIZE_BOUNDS = (0.05, 10.0)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Voxel size and B0 direction in array axes, in the order nibabel gives them (x, y, z).

    Parameters
    ----------
    voxel_size
        Edge lengths in mm.
    b0_dir
        Direction of the main field in voxel axes; normalised here, its sign does not matter.

    Raises
    ------
    ValueError
        If a voxel edge is outside 0.05 to 10 mm, or the direction is zero or not finite.
    """

    voxel_size: Triple
    b0_dir: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxel_size", _triple("voxel_size", self.voxel_size))
        direction = _triple("b0_dir", self.b0_dir)
        low, high = _VOXEL_SIZE_BOUNDS
        if not all(low <= edge <= high for edge in self.voxel_size):
            raise ValueError(f"voxel_size {self.voxel_size} mm is outside {low} to {high} mm")
        norm = math.sqrt(sum(component**2 for component in direction))
        if not math.isfinite(norm) or norm < 1e-6:
            raise ValueError(f"b0_dir {direction} has no direction")
        unit = tuple(component / norm for component in direction)
        object.__setattr__(self, "b0_dir", unit)

    @classmethod
    def from_affine(cls, affine: npt.ArrayLike) -> "Geometry":
        """Geometry of a NIfTI grid: column norms, and B0 along world z (the scanner's bore).

        With ``affine[:3, :3] = R diag(voxel_size)`` the direction in voxel axes is ``R^T z``, which
        holds for oblique, flipped and permuted grids alike.

        Raises
        ------
        ValueError
            If the affine is not 4x4, singular or sheared by more than 1 %.
        """
        matrix = np.asarray(affine, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"affine must be a finite 4x4 matrix, got shape {matrix.shape}")
        edges = np.linalg.norm(matrix[:3, :3], axis=0)
        if (edges <= 0).any():
            raise ValueError("affine is singular")
        axes = matrix[:3, :3] / edges
        if np.abs(axes.T @ axes - np.eye(3)).max() > 0.01:
            raise ValueError("affine is singular or sheared: its axes are not at right angles")
        return cls(_triple("voxel_size", edges), _triple("b0_dir", axes[2]))

    @property
    def tilt_degrees(self) -> float:
        """Angle between B0 and the nearest voxel axis, in degrees."""
        return math.degrees(math.acos(min(1.0, max(abs(c) for c in self.b0_dir))))


def _triple(name: str, values: Sequence[float] | npt.NDArray[np.float64]) -> Triple:
    numbers = [float(v) for v in np.asarray(values, dtype=np.float64).ravel()]
    if len(numbers) != 3:
        raise ValueError(f"{name} needs three numbers, got {len(numbers)}")
    return numbers[0], numbers[1], numbers[2]
