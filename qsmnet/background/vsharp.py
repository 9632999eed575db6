r"""Background removal by spherical means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.background.crop import Crop, times_real
from qsmnet.background.depth import depth_in_mask
from qsmnet.background.removal import local_field_on, no_sphere_fits
from qsmnet.background.spheres import sphere_spectrum
from qsmnet.geometry import Geometry
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, TotalField


@dataclass(frozen=True)
class VSharp:
    r"""V-SHARP: a harmonic field equals its mean over any sphere, a local field does not.

    Schweser et al. 2011, 10.1016/j.neuroimage.2010.10.070; Wu et al. 2012, 10.1002/mrm.23000. With
    :math:`S_r` the mean over the largest sphere that fits into the mask at a voxel,

    .. math:: b = E\, F^{-1} \frac{F[(1 - S_r) f]}{1 - \hat S_{r_{max}}},
       \qquad \text{0 where } |1 - \hat S_{r_{max}}| < t

    with E the mask eroded by the smallest radius. Differs from most codes: spheres are in mm on any
    voxel shape, and their weights are corrected so that second moments are isotropic - a voxelised
    sphere of anisotropic voxels does not have the mean value property, and the deconvolution
    amplifies what is left. It works on the box of the mask, zero-padded by the largest radius;
    beyond the scan's grid counts as outside. Spectra of spheres cost no FFT.

    Parameters
    ----------
    radii
        In mm, descending. Radii below the longest voxel edge hold no sphere and are left out.
    threshold
        t; larger removes more low frequencies, of the local field too.

    Raises
    ------
    ValueError
        If the radii are empty, not positive or not descending, or the threshold is outside (0, 1).
    """

    # a YAML list brings a list, of whole numbers too
    radii: Sequence[float | int] = tuple(range(12, 0, -1))
    threshold: float = 0.1

    summary: ClassVar[Summary] = Summary(
        cost="half an FFT pair a radius and one and a half, 7.5 by default",
        use="Fast, robust against noise and errors at the mask's edge.",
        reference="Wu et al. 2012, 10.1002/mrm.23000",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(float(radius) for radius in self.radii))
        if (
            not self.radii
            # written so that NaN and infinity fail
            or not 0 < self.radii[-1] <= self.radii[0] < math.inf
            or not all(first > then for first, then in pairwise(self.radii))
        ):
            raise ValueError(f"radii are in mm, positive and descending, got {list(self.radii)}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie in (0, 1), got {self.threshold}")

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field on the mask eroded by the smallest radius; noise and magnitude are passed on.

        Raises
        ------
        InconsistentError
            If no sphere fits into the mask.
        """
        radii = [radius for radius in self.radii if radius >= max(total.geometry.voxel_size)]
        crop = Crop.of(total.mask, self.radii[0], total.geometry)
        depth = crop.pad(depth_in_mask(total.mask[crop.box], total.geometry, self.radii[0]))
        deepest = float(depth.max())
        fitting = [radius for radius in radii if radius < deepest]
        if not fitting:
            raise no_sphere_fits(self.radii, total.geometry)
        field = crop.take_inside(total)
        highpass = field_minus_means(field, fitting, depth, crop, total.geometry)
        local = deconvolved(highpass, fitting[0], self.threshold, crop, total.geometry)
        known = crop.put(depth, total.mask) > fitting[-1]
        return local_field_on(known, crop.put(local, total.mask), total)


def field_minus_means(
    field: Float[Tensor, "x y z"],
    radii: Sequence[float],
    depth: Float[Tensor, "x y z"],
    crop: Crop,
    geometry: Geometry,
) -> Float[Tensor, "x y z"]:
    """Field minus its mean over the largest sphere that fits; 0 where none does.

    Parameters
    ----------
    field
        On the FFT grid of ``crop``, zero outside the mask.
    radii
        In mm, descending.
    depth
        In mm, see `depth_in_mask`.
    """
    spectrum = crop.transform(field)
    product = torch.empty_like(spectrum)
    means, fits = field.clone(), torch.empty_like(field)
    # from small to large, so that each voxel keeps the largest sphere that fits
    for radius in reversed(radii):
        sphere = sphere_spectrum(crop.shape, radius, geometry, field.device)
        mean = crop.back(times_real(spectrum, sphere, out=product))
        # several times faster than torch.where, and exact for weights of 0 and 1
        means.lerp_(mean, torch.gt(depth, radius, out=fits))
    return field - means


def deconvolved(
    highpass: Float[Tensor, "x y z"],
    radius: float,
    threshold: float,
    crop: Crop,
    geometry: Geometry,
) -> Float[Tensor, "x y z"]:
    """Undo ``1 - mean over a sphere`` where its spectrum is above ``threshold``; one FFT pair."""
    sphere = sphere_spectrum(crop.shape, radius, geometry, highpass.device)
    kernel = sphere.neg_().add_(1.0)
    inverse = torch.where(kernel.abs() < threshold, 0.0, 1.0 / kernel)
    return crop.filter(highpass, inverse)
