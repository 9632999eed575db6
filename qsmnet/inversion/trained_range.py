"""What weights were trained for, as their card states it, and scans that lie outside of it.

A card claims what the settings of its simulation tell. A key that it lacks is no claim, and no scan
lies outside of it. Not among them:

- the ratio of noise to field, although a network that is homogeneous of degree 1 sees nothing else
  of the noise, and the size of the field, which matters to `qsmnet.networks.kqsm_he2022` alone: the
  settings bound the noise, but not the field of the phantoms that are drawn;
- a least size of the grid: every network pads what it is given to what it needs.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from qsmnet.geometry import Geometry, Triple
from qsmnet.volumes import LocalField
from qsmnet.weights.store import Card

_ALL = (0.0, math.inf)
# of a bound, since headers hold rounded numbers
_TOLERANCE = 0.01
_TILT_TOLERANCE = 0.5  # degrees


def training_range_flags(
    card: Card, geometry: Geometry, noise: Sequence[float], takes_noise: bool = True
) -> tuple[str, ...]:
    """Warnings where a scan lies outside what the card says the weights were trained for.

    Parameters
    ----------
    card
        Of the weights; what is in its ``trained_for`` counts.
    geometry
        Of the scan, with the axes in the order of the training.
    noise
        `typical_noise` of the scan in ppm, one a volume; 0 where unknown.
    takes_noise
        Whether the network looks at the noise that it is told.
    """
    trained: dict[str, Any] = card.get("trained_for", {})
    return (
        *_size_flags(trained, geometry.voxel_size),
        *_shape_flags(trained, geometry.voxel_size),
        *_tilt_flags(trained, geometry),
        *_noise_flags(trained, noise, takes_noise),
    )


def typical_noise(local: LocalField) -> list[float]:
    """Median of the noise in the mask in ppm, as it is stated, one a volume; 0 where unknown.

    Zeros beside positive values are not known, as for `LocalField.data_weight`.
    """
    shape = local.field.shape
    volumes = shape[:-3].numel()
    if not isinstance(local.noise, Tensor):
        return [float(local.noise or 0.0)] * volumes
    maps = zip(*(v.reshape(-1, *shape[-3:]) for v in (local.noise, local.mask)), strict=True)
    known = [noise[mask & (noise > 0) & noise.isfinite()] for noise, mask in maps]
    return [float(each.median()) if each.numel() else 0.0 for each in known]


def slice_ratios(voxel_size: Triple) -> tuple[float, float]:
    """Thickness of a slice, the third edge, over each edge in plane; the smaller ratio first."""
    x, y, z = voxel_size
    return z / max(x, y), z / min(x, y)


def in_plane_ratio(voxel_size: Triple) -> float:
    """Longer edge in plane over the shorter one."""
    x, y, _ = voxel_size
    return max(x, y) / min(x, y)


def _size_flags(trained: dict[str, Any], voxel_size: Triple) -> list[str]:
    low, high = trained.get("voxel_size_mm", _ALL)
    if not any(_outside(edge, low, high) for edge in voxel_size):
        return []
    return [f"voxel size {voxel_size} mm is outside the {low} to {high} mm of the training"]


def _shape_flags(trained: dict[str, Any], voxel_size: Triple) -> list[str]:
    low, high = trained.get("slice_ratio", _ALL)
    flags = [
        f"slices are {ratio:.3g} times as thick as a voxel is wide; "
        f"trained for {low:.3g} to {high:.3g} times"
        for ratio in dict.fromkeys(slice_ratios(voxel_size))
        if _outside(ratio, low, high)
    ]
    ratio, largest = in_plane_ratio(voxel_size), trained.get("in_plane_ratio", math.inf)
    if _outside(ratio, 1.0, largest):
        stretched = f"voxels are {ratio:.3g} times as long as wide in plane"
        flags.append(f"{stretched}; trained up to {largest:.3g} times")
    return flags


def _tilt_flags(trained: dict[str, Any], geometry: Geometry) -> list[str]:
    tilt = math.degrees(math.acos(min(1.0, abs(geometry.b0_dir[2]))))
    largest = trained.get("tilt_degrees", 180.0)
    if tilt <= largest + _TILT_TOLERANCE:
        return []
    return [f"B0 lies {tilt:.0f} degrees from the third axis; trained up to {largest:.0f}"]


def _noise_flags(trained: dict[str, Any], noise: Sequence[float], takes_noise: bool) -> list[str]:
    low, high = trained.get("noise_ppm", _ALL)
    known = [level for level in noise if level > 0]
    flags = [
        f"typical noise of {level:.2g} ppm is outside the {low:.2g} to {high:.2g} ppm "
        "of the training"
        for level in sorted({min(known), max(known)} if known else ())
        if _outside(level, low, high)
    ]
    if takes_noise and low > 0 and len(known) < len(noise):
        flags.append(f"noise is unknown; trained with {low:.2g} to {high:.2g} ppm that was known")
    return flags


def _outside(value: float, low: float, high: float) -> bool:
    return not low * (1 - _TOLERANCE) <= value <= high * (1 + _TOLERANCE)
