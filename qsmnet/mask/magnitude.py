"""Object mask from the magnitude."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry, Triple

_FEWEST_VOXELS = 64


@dataclass(frozen=True)
class MagnitudeMask:
    r"""Robust threshold, opening, largest connected part, holes filled, erosion.

    .. math:: m > s \max(5\,\bar m_{\le q_{15}},\ \bar m_{q_{80} \ldots q_{99}} / 5)

    the noise-or-signal rule of MriResearchTools' ``robustmask``, by majority over ``smoothing`` mm.
    The opening cuts the bridges between brain and scalp; it is no brain
    extraction: the skull's marrow or eyes may stay. For a patch without background use `WholeMask`.

    Parameters
    ----------
    strength
        s; larger is stricter.
    smoothing
        Standard deviation of the Gaussian in mm; 0 is none.
    opening
        Radius in mm; 0 is none.
    erosion
        Radius in mm taken off in the end; 0 is none.

    Raises
    ------
    ValueError
        If ``strength`` is not positive or a length is negative.
    """

    strength: float = 1.0
    smoothing: float = 1.0
    opening: float = 2.5
    erosion: float = 1.0

    def __post_init__(self) -> None:
        if self.strength <= 0:
            raise ValueError(f"strength must be positive, got {self.strength}")
        if min(self.smoothing, self.opening, self.erosion) < 0:
            raise ValueError("smoothing, opening and erosion are lengths in mm, not negative")

    def __call__(
        self, magnitude: Float[Tensor, "x y z"], geometry: Geometry, /
    ) -> Bool[Tensor, "x y z"]:
        """Mask of the largest bright object; NaN counts as background.

        Raises
        ------
        InconsistentError
            If nothing is left.
        """
        edges = geometry.voxel_size
        values = np.nan_to_num(
            magnitude.numpy().astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0
        )
        bright = values > self.strength * robust_threshold(values)
        # a majority in the neighbourhood: averaging the magnitude itself would grow the object
        sigma = [self.smoothing / edge for edge in edges]
        inside = ndimage.gaussian_filter(bright.astype(np.float32), sigma) > 0.5
        inside = _largest_part(_erode(inside, self.opening, edges))
        inside = _fill_holes(_dilate(inside, self.opening, edges))
        inside = _largest_part(_erode(inside, self.erosion, edges))
        if int(inside.sum()) < _FEWEST_VOXELS:
            raise InconsistentError(
                "magnitude",
                "no object stands out of it",
                "give a mask: --mask FILE, or --mask whole",
            )
        return torch.from_numpy(inside)


def robust_threshold(magnitude: np.ndarray) -> float:
    """Threshold between noise and signal, in the unit of the magnitude."""
    q15, q80, q99 = np.quantile(magnitude, [0.15, 0.80, 0.99])
    high = magnitude[(magnitude >= q80) & (magnitude <= q99)].mean()
    noise = magnitude[magnitude <= q15].mean()
    if noise > high / 10:  # the object fills the grid: the darkest voxels are object, not noise
        noise = 0.0
    return float(max(5 * noise, high / 5))


def _distance(inside: np.ndarray, edges: Triple) -> np.ndarray:
    # beyond the grid nothing is known, so that it counts as outside
    padded = np.pad(inside, 1)
    distance: np.ndarray = ndimage.distance_transform_edt(padded, sampling=edges)[1:-1, 1:-1, 1:-1]
    return distance


def _erode(inside: np.ndarray, radius: float, edges: Triple) -> np.ndarray:
    return inside if radius == 0 else _distance(inside, edges) > radius


def _dilate(inside: np.ndarray, radius: float, edges: Triple) -> np.ndarray:
    if radius == 0 or not inside.any():
        return inside
    near: np.ndarray = ndimage.distance_transform_edt(~inside, sampling=edges) <= radius
    return near


def _fill_holes(inside: np.ndarray) -> np.ndarray:
    filled: np.ndarray = ndimage.binary_fill_holes(inside)
    return filled


def _largest_part(inside: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(inside)
    if count < 2:
        return inside
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: np.ndarray = labels == sizes.argmax()
    return largest
