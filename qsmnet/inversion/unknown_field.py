r"""Inversion when the field is known in part of the grid only.

Every method with the data term :math:`\frac12 \sum W (D\chi + c - b)^2` starts from the same five
arrays on the padded FFT grid: the field b, its weight W, the support of chi, and D. W is zero in
the padding and wherever the field is unknown: zeros there would be read as data, a floor of 16 to
27 % on the error.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Dipole, Kernel
from qsmnet.geometry import Triple
from qsmnet.volumes import Box, LocalField, bounding_box

_LEAST_FIELD = 0.01  # of a uniform support, root mean square over its susceptibility
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class DataTerm:
    """The data term on the padded grid of one volume.

    Parameters
    ----------
    field
        b in ppm, zero where it is unknown.
    weight
        W in [0, 1], zero where the field is unknown and in the padding.
    support
        1 where chi is sought, else 0.
    spectrum
        D on the half spectrum.
    voxel_size
        In mm.
    box
        Where the unpadded part lies in the caller's volume.
    """

    field: Float[Tensor, "x y z"]
    weight: Float[Tensor, "x y z"]
    support: Float[Tensor, "x y z"]
    spectrum: Float[Tensor, "kx ky kz"]
    voxel_size: Triple
    box: Box

    @classmethod
    def of(cls, local: LocalField, kernel: Kernel, padding: float) -> "DataTerm":
        """Crop to what is sought or known, then pad by the factor ``padding``.

        The grid is periodic, so that a gap is needed around the sources; 1.25 of the crop costs
        TV about 0.1 points on heads, and more on small objects (docs/training.md).
        """
        weight = local.data_weight()
        # a dipole's grid has two voxels an axis or more
        box = bounding_box(local.mask | (weight > 0), least=2)
        known = torch.where(weight > 0, local.field, 0.0)
        size = [part.stop - part.start for part in box]
        dipole = Dipole(
            size, local.geometry, kernel, padding, local.field.dtype, device=local.field.device
        )
        field, weight, support = (
            padded(each[box], dipole.padded_shape)
            for each in (known, weight, local.mask.to(local.field.dtype))
        )
        voxel_size = local.geometry.voxel_size
        return cls(field, weight, support, dipole.spectrum, voxel_size, box)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the padded grid."""
        x, y, z = self.field.shape
        return x, y, z

    def mean_weight(self) -> float:
        """Mean of W where the field is known: ``sd_min^2`` times the mean of ``1 / sd^2``.

        W is relative to the best voxel, which may be far better than the rest; what is compared
        with W is multiplied by this, so that its meaning hangs on the typical voxel.
        """
        return float(self.weight.sum() / (self.weight > 0).sum().clamp_min(1))

    def scale(self) -> float:
        """Root of the weighted mean square of the field about its mean, in ppm."""
        total = self.weight.sum().clamp_min(torch.finfo(self.weight.dtype).tiny)
        mean = (self.weight * self.field).sum() / total
        return float(((self.weight * (self.field - mean) ** 2).sum() / total).sqrt())

    def field_of(self, chi: Float[Tensor, "px py pz"]) -> Float[Tensor, "px py pz"]:
        """Field in ppm of a susceptibility in ppm, both on the padded grid; one FFT pair."""
        axes = (-3, -2, -1)
        spectrum = torch.fft.rfftn(chi, dim=axes).mul_(self.spectrum)
        field: Tensor = torch.fft.irfftn(spectrum, s=self.shape, dim=axes)
        return field

    def uniform(self) -> "Uniform":
        """Field of a uniform susceptibility in the support; one FFT pair."""
        model = self.field_of(self.support)
        weighted = self.weight * model
        weighted -= self.weight * (weighted.sum() / self.weight.sum().clamp_min(_TINY))
        power = torch.dot(weighted.ravel(), model.ravel())
        # a sphere has no field of its own inside: what is not in the data is not looked for
        power += _LEAST_FIELD**2 * (self.weight * self.support).sum()
        return Uniform(model, weighted / power.clamp_min(_TINY))

    def pad(self, volume: Float[Tensor, "x y z"]) -> Float[Tensor, "px py pz"]:
        """Move a volume of the caller's grid to the padded grid."""
        return padded(volume[self.box].to(self.field.dtype), self.shape)

    def paste(
        self, padded_volume: Float[Tensor, "px py pz"], local: LocalField
    ) -> Float[Tensor, "x y z"]:
        """Move a volume of the padded grid to the caller's, zero outside the mask."""
        result = torch.zeros_like(local.field)
        x, y, z = (part.stop - part.start for part in self.box)
        result[self.box] = padded_volume[:x, :y, :z]
        return result * local.mask


@dataclass(frozen=True, slots=True)
class Uniform:
    """A uniform susceptibility in the support, and how much of it best explains a residual.

    The mean of chi shows in the field by the shape of the mask alone, so that iterations find it
    last: after 40 of TV's, a head of mean 0.28 ppm still had a mean of 0.12, at five times the
    error.

    Parameters
    ----------
    field
        D times the support.
    probe
        Its inner product with a residual field is the best level in ppm, a constant being free.
    """

    field: Float[Tensor, "x y z"]
    probe: Float[Tensor, "x y z"]

    def level(self, residual: Float[Tensor, "x y z"]) -> float:
        """Susceptibility in ppm."""
        return float(torch.dot(self.probe.ravel(), residual.ravel()))


def noise_of_weighted(local: LocalField) -> float:
    r"""Return the noise (ppm) the weighted data stand for, :math:`\langle 1/sd^2 \rangle^{-1/2}`.

    It is the noise itself where that is one number, and 0 where it is unknown.
    """
    if not isinstance(local.noise, Tensor):
        return float(local.noise or 0.0)
    known = local.noise[(local.support > 0) & (local.noise > 0)]
    return float(known.pow(-2).mean().pow(-0.5)) if known.numel() else 0.0


def volumes_of(local: LocalField) -> Iterator[LocalField]:
    """Yield the single volumes of a batch, in order."""
    for index in range(math.prod(local.field.shape[:-3])):

        def volume(batch: Tensor, index: int = index) -> Tensor:
            return batch.reshape(-1, *batch.shape[-3:])[index]

        support, noise, magnitude = local.field_support, local.noise, local.magnitude
        yield LocalField(
            field=volume(local.field),
            mask=volume(local.mask),
            geometry=local.geometry,
            field_support=None if support is None else volume(support),
            noise=volume(noise) if isinstance(noise, Tensor) else noise,
            magnitude=None if magnitude is None else volume(magnitude),
            radians_per_ppm=local.radians_per_ppm,
            harmonic_removed=local.harmonic_removed,
            csf=None if local.csf is None else volume(local.csf),
        )


def padded(volume: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Zeros of ``shape`` with ``volume`` in their first corner."""
    result = volume.new_zeros(shape)
    x, y, z = volume.shape
    result[:x, :y, :z] = volume
    return result
