"""A dipole inversion as networks that hold D see it: of order one, weighted by its noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.dipole import Dipole, Kernel
from qsmnet.geometry import Geometry

Scale = Literal["median", "rms"]

_AXES = (-3, -2, -1)
_LEAST_SCALE = 1e-9  # ppm, so that an empty field gives an empty map
_LEAST_SHARE = 0.01  # of the rms: a point source in an empty grid has a median field near zero
_MOST_CERTAIN = 4.0  # of a certainty
_LEAST_LEVEL, _TYPICAL_LEVEL = 0.01, 0.2  # of noise over s, as a network is shown it
_MOST_SIGMAS = 5.0
_BRIGHTEST = 4.0  # next to a coil the signal is many times its median, and says no more

Volume = Float[Tensor, "batch 1 x y z"]
Number = Float[Tensor, "batch 1 1 1 1"]


@dataclass(frozen=True)
class Problem:
    r"""What is known of the field, divided by a scale s; float32 whatever autocast says.

    The data term is :math:`\tfrac12 \sum W (D \chi + c - b)^2`, with chi zero off the mask and c a
    free constant. W is the support times :math:`\min(1, \bar\sigma^2 / \sigma^2)`, where
    :math:`\bar\sigma` is the median noise in the mask: relative to the *best* voxel, as for the
    converged solvers, half the data would hardly count in the few steps that a network takes.

    Parameters
    ----------
    field
        b / s, zero where it is unknown, its mean over W taken out.
    weight
        W in [0, 1], zero where the field is unknown.
    mask
        1 where susceptibility is sought, else 0.
    certainty
        :math:`\min(4, \bar\sigma / \sigma)`, zero where the field is unknown, 1 where the noise is.
        The phase noise of a voxel is that of the image over its magnitude, so that edges of tissue
        are edges here, however low the noise.
    noise
        Standard deviation over s, zero where the field is unknown.
    level
        Median noise over s; 0 when unknown.
    scale
        s in ppm.
    dipole
        D, zero-padded.
    geometry
        One an item.
    """

    field: Volume
    weight: Volume
    mask: Volume
    certainty: Volume
    noise: Volume
    level: Number
    scale: Number
    dipole: Dipole
    geometry: Sequence[Geometry]

    @classmethod
    def of(
        cls,
        field: Volume,
        support: Volume,
        noise: Volume,
        mask: Volume,
        geometry: Sequence[Geometry],
        kernel: Kernel,
        padding: float,
        scale: Scale,
    ) -> "Problem":
        """Weigh and scale what a network is given (`qsmnet.networks.contract.Network`)."""
        with torch.autocast(field.device.type, enabled=False):
            known = (support > 0).float()
            noise = noise.float() * known
            inside = known * (mask > 0)
            typical = _medians(noise, inside * (noise > 0))
            certainty = known * _certainty(noise, typical)
            weight = support.float() * certainty.clamp_max(1.0).square()
            field = known * (field.float() - _mean(field.float(), weight))
            size = field_scale(field, inside, scale)
            shape = tuple(field.shape[-3:])
            dipole = Dipole(shape, geometry, kernel, padding, device=field.device)
            return cls(
                field / size,
                weight,
                mask.float(),
                certainty,
                noise / size,
                typical / size,
                size,
                dipole,
                geometry,
            )

    def residual(self, chi: Volume) -> Volume:
        """``W (b - c - D chi)`` with the best c: the downhill direction in the field."""
        missing = self.field - self.dipole.forward(chi)
        return self.weight * (missing - _mean(missing, self.weight))

    def consistent(self, chi: Volume, residual: Volume, mu: Number) -> Volume:
        r"""Estimate that agrees with the field filled by ``chi``, in closed form.

        With :math:`\tilde b = W (b - c) + (1 - W) D \chi`, the field is its ``residual`` beside
        :math:`D \chi`, so that

        .. math:: x = F^{-1} \frac{D F \tilde b + \mu F \chi}{D^2 + \mu}
           = \chi + F^{-1} \frac{D}{D^2 + \mu} F\, W (b - c - D \chi):

        one majorise-minimise step of the data term with :math:`\mu/2 |x - \chi|^2` (Jacobson &
        Fessler 2007, 10.1109/TIP.2007.904387), and exact where W = 1. Two FFT pairs with
        `residual`.
        """
        spectrum = self.dipole.spectrum
        return chi + self.dipole.filter(residual, spectrum / (spectrum**2 + mu[:, 0]))

    def over_noise(self, residual: Volume) -> Volume:
        """Residual in standard deviations of its noise, at most 5; noise is at least 0.01 s."""
        deviations = residual * self.certainty / self.level.clamp_min(_LEAST_LEVEL)
        return deviations.clamp(-_MOST_SIGMAS, _MOST_SIGMAS)

    @property
    def log_noise(self) -> Volume:
        """Logarithm of the noise, at least 0.01 s, over 0.2 s; zero off the mask."""
        return (self.noise.clamp_min(_LEAST_LEVEL) / _TYPICAL_LEVEL).log() * self.mask

    def near_the_cone(self, chi: Volume, width: float) -> Volume:
        r"""Part of an estimate where \|D\| is below about w: ``F^-1 w^2 / (D^2 + w^2) F chi``."""
        square = width**2
        return self.dipole.filter(chi, square / (self.dipole.spectrum**2 + square))

    def consistent_with_zeros(self, chi: Volume, mu: Number) -> Volume:
        """As `consistent`, with the field taken to be zero wherever it is unknown."""
        spectrum = self.dipole.spectrum
        inverse = 1.0 / (spectrum**2 + mu[:, 0])
        known = self.field * (self.weight > 0)
        return self.dipole.filter(known, spectrum * inverse) + self.dipole.filter(
            chi, mu[:, 0] * inverse
        )


def check_scale(scale: Scale, name: str = "scale") -> None:
    """Raise `ValueError` unless the setting of this name is ``median`` or ``rms``."""
    if scale not in get_args(Scale):
        raise ValueError(f"{name} is 'median' or 'rms', got {scale!r}")


def check_switch(name: str, value: object) -> None:
    """Raise `ValueError` unless it is true or false."""
    if type(value) is not bool:
        raise ValueError(f"{name} must be true or false, got {value!r}")


def relative_magnitude(magnitude: Volume | None, mask: Volume) -> Volume:
    r"""Magnitude over its median in the mask, :math:`\min(4, m / \mathrm{median}(m))`.

    It has no unit. Zero off the mask, where the magnitude is not a positive number, and everywhere
    for an item without one.
    """
    if magnitude is None:
        return torch.zeros_like(mask)
    magnitude = magnitude.float()
    known = (mask > 0) & (magnitude > 0) & magnitude.isfinite()
    typical = _medians(magnitude, known).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(known, magnitude / typical, 0.0).clamp_max(_BRIGHTEST)


def field_scale(field: Volume, inside: Volume, kind: Scale) -> Number:
    """Scale of each item's field in ppm: the median of its absolute value, or its rms, ``inside``.

    One haemorrhage of 1 ppm can be most of the rms of a head, and the tissue around it would come
    to the network as a pale one.
    """
    rms = rms_inside(field, inside)
    if kind == "rms":
        return rms.clamp_min(_LEAST_SCALE)
    return torch.maximum(_medians(field.abs(), inside), _LEAST_SHARE * rms).clamp_min(_LEAST_SCALE)


def rms_inside(volume: Volume, inside: Volume) -> Number:
    """Root mean square of each item where ``inside`` is 1; 0 where there is nothing."""
    total = (volume.square() * inside).sum(_AXES, keepdim=True)
    rms: Tensor = (total / inside.sum(_AXES, keepdim=True).clamp_min(1.0)).sqrt()
    return rms


def _medians(volume: Volume, inside: Volume | Bool[Tensor, "batch 1 x y z"]) -> Number:
    """Median of each item where ``inside`` is not zero; 0 where there is nothing."""
    found = [
        values[chosen > 0].median() if bool((chosen > 0).any()) else values.new_zeros(())
        for values, chosen in zip(volume, inside, strict=True)
    ]
    return torch.stack(found).reshape(-1, 1, 1, 1, 1)


def _certainty(noise: Volume, typical: Number) -> Volume:
    """``min(4, typical / noise)``; 1 where the noise is unknown."""
    ratio = typical / noise.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(noise > 0, ratio, 1.0).clamp_max(_MOST_CERTAIN)


def _mean(volume: Volume, weight: Volume) -> Number:
    """Weighted mean of each item."""
    total: Tensor = weight.sum(_AXES, keepdim=True)
    return (weight * volume).sum(_AXES, keepdim=True) / total.clamp_min(1e-6)
