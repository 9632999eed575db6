"""The nouns of the pipeline: Scan -> TotalField -> LocalField -> Susceptibility.

Arrays are ``(*batch, x, y, z)`` in the order nibabel gives them; fields and susceptibility in ppm.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.geometry import Geometry

#: Part of a grid along each axis.
Box = tuple[slice, slice, slice]

_VOID = 5.0


@dataclass(frozen=True, slots=True)
class Scan:
    """A multi-echo gradient-echo scan.

    Parameters
    ----------
    wrapped_phase
        ``(echo, x, y, z)`` in rad, any multiple of 2 pi missing.
    magnitude
        ``(echo, x, y, z)``, arbitrary unit.
    echo_times
        In s, one an echo, increasing.
    b0
        Main field in T.
    geometry
        Voxel size and B0 direction.
    offset_removed
        Whether the phase at TE = 0 was estimated and taken out, so that phase is proportional to
        the echo time.
    csf
        Where cerebrospinal fluid is; None where not known.
    """

    wrapped_phase: Float[Tensor, "echo x y z"]
    magnitude: Float[Tensor, "echo x y z"]
    echo_times: tuple[float, ...]
    b0: float
    geometry: Geometry
    offset_removed: bool = False
    csf: Bool[Tensor, "x y z"] | None = None

    def __post_init__(self) -> None:
        _same_shape(wrapped_phase=self.wrapped_phase, magnitude=self.magnitude)
        if len(self.echo_times) != self.wrapped_phase.shape[0]:
            raise ValueError(
                f"{len(self.echo_times)} echo times for {self.wrapped_phase.shape[0]} echoes"
            )


@dataclass(frozen=True, slots=True)
class TotalField:
    """Field of all sources, inside and outside the object's mask.

    Parameters
    ----------
    field
        ``(x, y, z)`` in ppm.
    mask
        Where the field is reliable.
    geometry
        Voxel size and B0 direction.
    noise
        Standard deviation of ``field`` in ppm, a map or one number; None when unknown.
    magnitude
        Echo-combined magnitude, arbitrary unit.
    radians_per_ppm
        Phase that 1 ppm makes at the longest echo; nonlinear data terms need it.
    csf
        Where cerebrospinal fluid is; None where not known.
    """

    field: Float[Tensor, "*batch x y z"]
    mask: Bool[Tensor, "*batch x y z"]
    geometry: Geometry
    noise: Float[Tensor, "*batch x y z"] | float | None = None
    magnitude: Float[Tensor, "*batch x y z"] | None = None
    radians_per_ppm: float | None = None
    csf: Bool[Tensor, "*batch x y z"] | None = None

    def __post_init__(self) -> None:
        _same_shape(
            field=self.field,
            mask=self.mask,
            magnitude=self.magnitude,
            noise=self.noise,
            csf=self.csf,
        )
        _not_empty(self.mask)


@dataclass(frozen=True, slots=True)
class LocalField:
    """What a dipole inversion is given: the field of the sources inside ``mask``.

    Parameters
    ----------
    field
        ``(*batch, x, y, z)`` in ppm.
    mask
        Support of the susceptibility that is sought.
    geometry
        Voxel size and B0 direction.
    field_support
        Where the field is data, bool, or how far it is, in [0, 1]. None means: on ``mask``. The
        field elsewhere is *unknown*, not zero.
    noise
        Standard deviation of ``field`` in ppm, a map or one number; None when unknown.
    magnitude
        Echo-combined magnitude, arbitrary unit.
    radians_per_ppm
        Phase that 1 ppm makes at the longest echo; without it a nonlinear data term would silently
        be linear.
    harmonic_removed
        Whether a background removal took every field out of ``field`` that is harmonic in the mask,
        the brain's own share too: then it is not the field of the sources in ``mask`` alone.
    csf
        Where cerebrospinal fluid is, which methods may take to be uniform; None where not known.
    """

    field: Float[Tensor, "*batch x y z"]
    mask: Bool[Tensor, "*batch x y z"]
    geometry: Geometry
    field_support: Float[Tensor, "*batch x y z"] | Bool[Tensor, "*batch x y z"] | None = None
    noise: Float[Tensor, "*batch x y z"] | float | None = None
    magnitude: Float[Tensor, "*batch x y z"] | None = None
    radians_per_ppm: float | None = None
    harmonic_removed: bool = False
    csf: Bool[Tensor, "*batch x y z"] | None = None

    def __post_init__(self) -> None:
        _same_shape(
            field=self.field,
            mask=self.mask,
            field_support=self.field_support,
            magnitude=self.magnitude,
            noise=self.noise,
            csf=self.csf,
        )
        _not_empty(self.mask)

    @property
    def support(self) -> Float[Tensor, "*batch x y z"]:
        """Where the field is known, in [0, 1]."""
        known = self.mask if self.field_support is None else self.field_support
        return known.to(self.field.dtype)

    def data_weight(self) -> Float[Tensor, "*batch x y z"]:
        """Weight ``W = support sd_min^2 / sd^2`` of the data term ``sum W (D chi + c - field)^2``.

        W is in [0, 1] and does not change with the unit of the noise. sd_min is the smallest known
        standard deviation where the field is known. One of zero, or not a number, beside positive
        ones is not known: such voxels are taken to be as noisy as the median of those that are
        known, not the best of all. Without any known W is the support.
        """
        support = self.support
        if not isinstance(self.noise, Tensor):
            return support
        known = (support > 0) & (self.noise > 0)
        if not bool(known.any()):
            return support
        deviations = self.noise[known]
        deviation = torch.where(known, self.noise, deviations.median())
        return support * (deviations.min() / deviation) ** 2

    def noise_level(self) -> float:
        """One number for the noise: the root mean square of its map in the mask, 0 when unknown."""
        if self.noise is None:
            return 0.0
        if isinstance(self.noise, Tensor):
            return float(self.noise[self.mask].square().mean().sqrt())
        return float(self.noise)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A parameter that was chosen from the data.

    Parameters
    ----------
    parameter
        Its name.
    value
        What was chosen.
    curve
        Every value that was tried and its criterion, in order of the values.
    target
        The criterion that was aimed at.
    settings
        Every parameter that differs from the method's own: fixed to these, it makes the same map.
    """

    parameter: str
    value: float
    curve: tuple[tuple[float, float], ...]
    target: float
    settings: dict[str, float]


@dataclass(frozen=True, slots=True)
class Susceptibility:
    """What a dipole inversion returns.

    Parameters
    ----------
    chi
        ``(*batch, x, y, z)`` in ppm, zero outside ``mask``.
    mask
        Where ``chi`` is an estimate.
    reference
        What chi is relative to: ``"none"`` (as the method left it), ``"brain_mean"``,
        ``"csf_mean"`` or ``"region_mean"``.
    uncertainty
        Standard deviation of chi in ppm, where the method gives one.
    flags
        Warnings in words, such as a voxel size outside a network's training range.
    chosen
        Parameters that were chosen from the data, one a volume.
    """

    chi: Float[Tensor, "*batch x y z"]
    mask: Bool[Tensor, "*batch x y z"]
    reference: str = "none"
    uncertainty: Float[Tensor, "*batch x y z"] | None = None
    flags: tuple[str, ...] = field(default=())
    chosen: tuple[Chosen, ...] = field(default=())

    def referenced_to_mean(self) -> "Susceptibility":
        """Subtract the mean over the mask: k = 0 is not in the data, so a reference is a choice."""
        inside = self.mask.to(self.chi.dtype)
        axes = (-3, -2, -1)
        mean = (self.chi * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True)
        chi = (self.chi - mean) * inside
        return replace(self, chi=chi, reference="brain_mean")


def quiet_support(
    support: Float[Tensor, "*batch x y z"],
    noise: Float[Tensor, "*batch x y z"],
    mask: Float[Tensor, "*batch x y z"] | Bool[Tensor, "*batch x y z"],
) -> Float[Tensor, "*batch x y z"]:
    """Support of one volume without its signal voids: noise over five times its median in the mask.

    There the field would weigh less than a twenty-fifth, and a network that takes the noise as
    nearly one number is better off without. One that weighs it is not: a few voxels of 3 ppm whose
    noise is 30 times the median are still the best word on a vein or a bleed.
    """
    inside = noise[mask > 0]
    return support * (noise <= _VOID * inside.median()) if len(inside) else support


def bounding_box(mask: Bool[Tensor, "x y z"], least: int = 1) -> Box:
    """Smallest box around the true voxels, at least ``least`` voxels an axis."""

    def extent(axis: int, over: tuple[int, int]) -> slice:
        # one axis after the other, which is faster than both at once
        inside = mask.any(dim=over[1]).any(dim=over[0]).nonzero()
        start = min(int(inside[0]), mask.shape[axis] - least)
        return slice(start, max(int(inside[-1]) + 1, start + least))

    return extent(0, (1, 2)), extent(1, (0, 2)), extent(2, (0, 1))


def _same_shape(**arrays: Tensor | float | None) -> None:
    shapes = {name: tuple(a.shape) for name, a in arrays.items() if isinstance(a, Tensor)}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"shapes disagree: {shapes}")


def _not_empty(mask: Tensor) -> None:
    if not bool(mask.any()):
        raise ValueError("mask is empty")
