r"""Background removal by spherical means."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.fft import next_fast_len
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from qsmnet.dipole import Shape
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
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
    amplifies what is left. The grid is zero-padded by the radius; beyond it counts as outside. Real
    FFTs: two a radius and three.

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
    threshold: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(float(radius) for radius in self.radii))
        if (
            not self.radii
            or min(self.radii) <= 0
            or any(first <= then for first, then in pairwise(self.radii))
        ):
            raise ValueError(f"radii are in mm, positive and descending, got {list(self.radii)}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie in (0, 1), got {self.threshold}")

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field on the mask eroded by the smallest radius; noise and magnitude are passed on.

        The noise is that of the total field: high-pass filtering and deconvolution nearly cancel.

        Raises
        ------
        InconsistentError
            If no sphere fits into the mask.
        """
        radii = [radius for radius in self.radii if radius >= max(total.geometry.voxel_size)]
        depth = depth_in_mask(total.mask, total.geometry)
        fitting = [radius for radius in radii if bool((depth > radius).any())]
        if not fitting:
            raise InconsistentError(
                "mask",
                f"no sphere of {list(self.radii)} mm fits between its edge and a voxel of "
                f"{max(total.geometry.voxel_size):g} mm",
                "use a larger mask or --set-background radii=[...]",
            )
        known = depth > fitting[-1]
        field = self._remove(total, fitting, depth) * known
        return LocalField(
            field=field,
            mask=known,
            geometry=total.geometry,
            field_support=known,
            noise=total.noise,
            magnitude=total.magnitude,
            radians_per_ppm=total.radians_per_ppm,
            harmonic_removed=True,
        )

    def _remove(self, total: TotalField, radii: list[float], depth: Tensor) -> Tensor:
        field = total.field * total.mask
        shape = _padded(field.shape, radii[0], total.geometry)
        spectrum = torch.fft.rfftn(field, s=shape)
        highpass = torch.zeros_like(field)
        largest = 1.0 - sphere_spectrum(shape, radii[0], total.geometry)
        # from small to large, so that each voxel keeps the largest sphere that fits
        for radius in reversed(radii):
            mean = _filter(
                spectrum * sphere_spectrum(shape, radius, total.geometry), shape, field.shape
            )
            highpass = torch.where(depth > radius, field - mean, highpass)
        inverse = torch.where(largest.abs() < self.threshold, 0.0, 1.0 / largest)
        return _filter(torch.fft.rfftn(highpass, s=shape) * inverse, shape, field.shape)


def depth_in_mask(mask: Bool[Tensor, "x y z"], geometry: Geometry) -> Float[Tensor, "x y z"]:
    """Distance in mm from each voxel's centre to the nearest one outside the mask or the grid."""
    padded = np.pad(mask.numpy(), 1)
    distance = distance_transform_edt(padded, sampling=geometry.voxel_size)[1:-1, 1:-1, 1:-1]
    return torch.from_numpy(distance.astype(np.float32))


def sphere_spectrum(shape: Shape, radius: float, geometry: Geometry) -> Float[Tensor, "kx ky kz"]:
    """Half spectrum of the mean over a sphere of ``radius`` mm: real, 1 at k = 0."""
    kernel = sphere_kernel(shape, radius, geometry)
    spectrum: Tensor = torch.fft.rfftn(kernel).real
    return spectrum


def sphere_kernel(shape: Shape, radius: float, geometry: Geometry) -> Float[Tensor, "x y z"]:
    r"""Weights of the mean over a voxelised sphere, centred at voxel 0 of an FFT grid.

    .. math:: w = [|r| \le R] \left(a_0 + \sum_i a_i x_i^2\right), \qquad
       \sum w = 1, \quad \sum w x_i^2 \text{ equal for the three axes}

    so that every harmonic polynomial up to third degree equals its mean exactly. For cubic voxels
    the correction vanishes.
    """
    steps = [
        # centres on the sphere's surface belong to it, whatever the rounding
        torch.arange(-(reach := int(radius * (1 + 1e-6) / edge)), reach + 1)
        for edge in geometry.voxel_size
    ]
    weights = _sphere_weights(steps, radius, geometry)
    x, y, z = (step % size for step, size in zip(steps, shape, strict=True))
    kernel = torch.zeros(shape)
    kernel[x[:, None, None], y[:, None], z] = weights.float()
    return kernel


def _sphere_weights(steps: Sequence[Tensor], radius: float, geometry: Geometry) -> Tensor:
    axes = [step.double() * edge for step, edge in zip(steps, geometry.voxel_size, strict=True)]
    squares = [axis**2 for axis in torch.meshgrid(*axes, indexing="ij")]
    inside = sum(squares) <= (radius * (1 + 1e-6)) ** 2
    basis = torch.stack([torch.ones_like(squares[0])[inside], *(each[inside] for each in squares)])
    moments = basis @ basis.T
    second = moments[0, 1:].mean() / moments[0, 0]
    target = torch.stack([torch.ones_like(second), second, second, second])
    weights = torch.zeros_like(squares[0])
    weights[inside] = torch.linalg.solve(moments, target) @ basis
    return weights


def _filter(spectrum: Tensor, padded: Shape, shape: torch.Size) -> Tensor:
    x, y, z = shape
    filtered: Tensor = torch.fft.irfftn(spectrum, s=padded)
    return filtered[:x, :y, :z]


def _padded(shape: torch.Size, radius: float, geometry: Geometry) -> Shape:
    x, y, z = (
        int(next_fast_len(n + int(radius / edge) + 1, real=True))
        for n, edge in zip(shape, geometry.voxel_size, strict=True)
    )
    return x, y, z
