r"""Inversion of what a field has above its spherical mean, which no source outside reaches.

.. math:: (1 - S)\, b = (1 - S)\, D \chi

with S the mean over a sphere: a field that is harmonic in the sphere equals its mean, so that what
a background removal left behind drops out of both sides, at the cost of a rim of the mask.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.background.crop import Crop
from qsmnet.background.spheres import sphere_spectrum
from qsmnet.errors import InconsistentError, UsageError
from qsmnet.geometry import Geometry
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.volumes import LocalField

_WHOLE = 0.999  # share of a sphere's weight that must be known


def above_spherical_mean(local: LocalField, radius: float) -> LocalField:
    """Field less its mean over spheres of ``radius`` mm, known where the whole sphere is.

    Its variance is that of the field plus the mean over the sphere of it, an upper bound.

    Raises
    ------
    UsageError
        If the radius is below the longest edge of a voxel: such a sphere holds one voxel.
    InconsistentError
        If no sphere fits into where the field is known.
    """
    if radius < max(local.geometry.voxel_size):
        longest = max(local.geometry.voxel_size)
        raise UsageError(
            "smv_radius", f"{radius:g} mm is below a voxel's edge", f"give {longest:g} mm or more"
        )
    known = (local.support > 0).to(local.field.dtype)
    mean, share = _means([local.field * known, known], radius, local.geometry)
    whole = (share > _WHOLE) & (known > 0)
    if not bool(whole.any()):
        raise InconsistentError(
            "mask", f"no sphere of {radius:g} mm fits into it", "give a smaller smv_radius"
        )
    noise = local.noise
    if isinstance(noise, Tensor):
        variance = noise.square() * known
        noise = (variance + _means([variance], radius, local.geometry)[0]).clamp_min(0).sqrt()
    field = torch.where(whole, local.field - mean, 0.0)
    return replace(local, field=field, field_support=local.support * whole, noise=noise)


def data_term_above_mean(data: DataTerm, radius: float, geometry: Geometry) -> DataTerm:
    """Return ``data`` with the dipole kernel that `above_spherical_mean` asks for, (1 - S) D."""
    sphere = sphere_spectrum(data.shape, radius, geometry).to(data.spectrum)
    return replace(data, spectrum=data.spectrum * (1 - sphere))


def _means(
    volumes: list[Float[Tensor, "x y z"]], radius: float, geometry: Geometry
) -> list[Float[Tensor, "x y z"]]:
    # what is beyond the box is zero, and a sphere must not reach around the grid
    crop = Crop.of(volumes[-1] > 0, radius, geometry)
    sphere = sphere_spectrum(crop.shape, radius, geometry).to(volumes[0])
    return [crop.put(crop.filter(crop.take(each), sphere), each) for each in volumes]
