"""Cerebrospinal fluid of the ventricles, found in a map of R2*."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry

_PARTS = 3  # largest parts about the centre: two lateral ventricles and the third
_LEAST = 200.0  # mm^3; below it is a cluster of noise
_MOST = 0.25  # share of the mask; above it R2* does not tell fluid from tissue


def find_csf(
    r2star: Float[Tensor, "x y z"],
    mask: Bool[Tensor, "x y z"],
    geometry: Geometry,
    threshold: float = 5.0,
    radius: float = 30.0,
    rim: float = 10.0,
) -> Bool[Tensor, "x y z"]:
    """Find the connected fluid that reaches the middle of the brain.

    The three largest connected parts of low R2* near the centroid of the mask, with all that is
    connected to them (MEDI+0: Liu Z et al. 2018, 10.1002/mrm.26946). Differs from it: what lies
    near the edge of the mask, where fields are least known, is left out first, and a result too
    small or too large to be ventricles is refused.

    Parameters
    ----------
    r2star
        In 1/s; not finite counts as high.
    mask
        The brain, its fluid included.
    geometry
        Voxel size.
    threshold
        R2* of fluid lies below, in 1/s.
    radius
        Of the sphere about the centroid, in mm.
    rim
        Depth in the mask, in mm, from which voxels count.

    Raises
    ------
    InconsistentError
        If there is no such fluid, or most of the brain would be.
    """
    depth = ndimage.distance_transform_edt(
        np.pad(mask.cpu().numpy(), 1), sampling=geometry.voxel_size
    )[1:-1, 1:-1, 1:-1]
    low = (r2star < threshold).cpu().numpy() & (depth > rim)
    found = _reaching(low, _near_centroid(mask, geometry, radius))
    volume = found.sum() * float(np.prod(geometry.voxel_size))
    if volume < _LEAST or found.sum() > _MOST * int(mask.sum()):
        raise InconsistentError(
            "R2*",
            f"{volume / 1000:.2f} ml of the middle of the mask have R2* below {threshold:g} 1/s: "
            "these are not the ventricles",
            "give a mask of the fluid (--csf FILE), or another reference",
        )
    return torch.from_numpy(found).to(mask.device)


def _near_centroid(
    mask: Bool[Tensor, "x y z"], geometry: Geometry, radius: float
) -> NDArray[np.bool_]:
    inside = mask.cpu().numpy()
    centre = ndimage.center_of_mass(inside)
    distance = 0.0
    for axis, (middle, edge) in enumerate(zip(centre, geometry.voxel_size, strict=True)):
        along = (np.arange(inside.shape[axis]) - middle) * edge
        view = [-1 if other == axis else 1 for other in range(3)]
        distance = distance + along.reshape(view) ** 2
    return np.asarray(distance <= radius**2)


def _reaching(low: NDArray[np.bool_], central: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the parts of ``low`` that hold one of its largest within ``central``."""
    parts, _ = ndimage.label(low & central)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = [part for part in np.argsort(sizes)[::-1][:_PARTS] if sizes[part]]
    whole, _ = ndimage.label(low)
    chosen = np.unique(whole[np.isin(parts, largest)])
    return np.isin(whole, chosen[chosen > 0])
