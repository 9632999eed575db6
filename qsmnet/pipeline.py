"""Scan -> total field -> local field -> susceptibility."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.background.noise import estimate_noise
from qsmnet.background.removal import BackgroundRemoval
from qsmnet.errors import InconsistentError, NumericalError, UsageError
from qsmnet.inversion.inverter import Input
from qsmnet.mask.finite import finite_in_mask
from qsmnet.mask.mask import Evidence, Mask, MaskPair, find_mask
from qsmnet.mask.two_pass import combine_two_pass
from qsmnet.phase.echoes import combined_magnitude, unwrap_echoes
from qsmnet.phase.fit import Fit
from qsmnet.phase.fit_line import LineFit
from qsmnet.phase.offset import OffsetRemoval
from qsmnet.phase.offset_mcpc3ds import Mcpc3ds
from qsmnet.phase.quality import quality_map
from qsmnet.phase.unwrap import Unwrap
from qsmnet.volumes import LocalField, Scan, Susceptibility, TotalField

log = logging.getLogger(__name__)

Reference = Literal["mean", "none"]

_INEXACT = (
    "the unwrapping is not exact: part of the field is lost near vessels, air and noise; "
    "prefer romeo for quantitative work"
)
_OFFSET_STAYS = "one echo: the phase offset of coils and pulses is part of the field"


@runtime_checkable
class AnyInverter(Protocol):
    """An `Inverter` or a `TotalFieldInverter`; ``takes`` says which."""

    takes: ClassVar[Input]

    def __call__(self, data: Any, /) -> Susceptibility:  # noqa: ANN401 see ``takes``
        """Susceptibility in ppm, zero outside the mask."""
        ...


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """A susceptibility map and everything it was made from.

    Parameters
    ----------
    susceptibility
        In ppm, referenced as asked for.
    mean_before_reference
        Mean of the map over its mask in ppm as the method left it; what referencing subtracts.
    noise_source
        Where the noise of the field comes from, in words.
    flags
        Warnings in words, of every stage.
    local_field, total_field, unwrapped
        Intermediates in ppm, ppm and rad (without the phase offset where it was removed); None for
        stages that did not run.
    """

    susceptibility: Susceptibility
    mean_before_reference: float
    noise_source: str
    flags: tuple[str, ...] = ()
    local_field: LocalField | None = None
    total_field: TotalField | None = None
    unwrapped: Float[Tensor, "echo x y z"] | None = None


@dataclass(frozen=True)
class Pipeline:
    """One method for each stage; enter it at any stage.

    Parameters
    ----------
    unwrap, mask, background, inverter
        The methods.
    reference
        ``mean`` makes the mean over the mask zero; ``none`` leaves the map as the method made it.
    offset, fit
        More methods: what removes the phase at TE = 0, and what makes one field of the echoes.

    Raises
    ------
    UsageError
        If the inverter needs several orientations.
    """

    unwrap: Unwrap
    mask: Mask
    background: BackgroundRemoval
    inverter: AnyInverter
    reference: Reference = "mean"
    offset: OffsetRemoval = field(default_factory=Mcpc3ds)
    fit: Fit = field(default_factory=LineFit)

    def __post_init__(self) -> None:
        if self.inverter.takes == "local_fields":
            raise UsageError(
                "--inverter",
                f"{type(self.inverter).__name__} needs several orientations",
                "choose a method that takes one scan",
            )

    def reconstruct(
        self,
        data: Scan | TotalField | LocalField,
        mask: Bool[Tensor, "x y z"] | MaskPair | None = None,
    ) -> Reconstruction:
        """Run the stages that are left.

        Parameters
        ----------
        data
            A scan, a total field or a local field.
        mask
            Of a scan; None finds it. Two masks make two passes. Fields bring their own.

        Raises
        ------
        NumericalError
            If data in the mask, or the result, are NaN or infinite.
        InconsistentError
            If the mask is empty or on another grid, or a single-step method is given a local field.
        """
        if isinstance(data, Scan):
            return self._from_scan(data, mask)
        if mask is not None:
            raise InconsistentError("mask", "given beside a field", "fields bring their own mask")
        if isinstance(data, TotalField):
            source = "given" if data.noise is not None else ""
            return self._from_total(data, source)
        return self._from_local(data, "given" if data.noise is not None else "")

    def object_mask(self, scan: Scan) -> Bool[Tensor, "x y z"] | MaskPair:
        """Mask, or both masks, that the configured method finds."""
        return find_mask(self.mask, scan_evidence(scan))

    def _from_scan(self, scan: Scan, mask: Tensor | MaskPair | None) -> Reconstruction:
        found = self.object_mask(scan) if mask is None else mask
        inside, reliable = (
            (found.filled, found.reliable) if isinstance(found, MaskPair) else (found, None)
        )
        if inside.shape != scan.magnitude.shape[1:] or not bool(inside.any()):
            raise InconsistentError(
                "mask",
                f"{int(inside.sum())} voxels on the grid {tuple(inside.shape)} do not fit the "
                f"{tuple(scan.magnitude.shape[1:])}",
                "give a mask of the scan's grid",
            )
        scan = replace(
            scan,
            wrapped_phase=finite_in_mask(scan.wrapped_phase, inside, "phase"),
            magnitude=finite_in_mask(scan.magnitude, inside, "magnitude"),
        )
        log.info("removing the phase offset")
        scan = self.offset(scan, inside)
        log.info("unwrapping %d echoes", len(scan.echo_times))
        unwrapped = unwrap_echoes(scan, inside, self.unwrap)
        log.info("fitting the field")
        total = replace(self.fit(scan, unwrapped, inside), csf=scan.csf)
        how = "residuals of the echo fit" if len(scan.echo_times) > 2 else "high-pass of the images"
        flags: tuple[str, ...] = () if self.unwrap.exact else (_INEXACT,)
        flags += (_OFFSET_STAYS,) if len(scan.echo_times) == 1 else ()
        source = f"estimated: {how} and the magnitude, a map"
        result = self._two_passes(total, reliable, source)
        return replace(result, unwrapped=unwrapped, flags=flags + result.flags)

    def _two_passes(
        self, total: TotalField, reliable: Tensor | None, noise_source: str
    ) -> Reconstruction:
        """One pass over the whole mask, and where there is a reliable one a second pass over it."""
        if reliable is None:
            return self._from_total(total, noise_source)
        as_it_is = replace(self, reference="none")
        first = as_it_is._from_total(total, noise_source)
        field = torch.where(reliable, total.field, 0.0)
        log.info("second pass, over the reliable mask")
        second = as_it_is._from_total(replace(total, field=field, mask=reliable), noise_source)
        both = self._finish(
            combine_two_pass(first.susceptibility, second.susceptibility), noise_source
        )
        return replace(
            first,
            susceptibility=both.susceptibility,
            mean_before_reference=both.mean_before_reference,
        )

    def _from_total(self, total: TotalField, noise_source: str) -> Reconstruction:
        total = replace(total, field=finite_in_mask(total.field, total.mask, "total field"))
        if self.inverter.takes == "total_field":
            log.info("inverting the total field")
            return self._finish(self.inverter(total), noise_source, total)
        log.info("removing the background field")
        local = replace(self.background(total), csf=total.csf)
        result = self._from_local(local, noise_source)
        return replace(result, total_field=total)

    def _from_local(self, local: LocalField, noise_source: str) -> Reconstruction:
        if self.inverter.takes == "total_field":
            raise InconsistentError(
                "--local-field", "a single-step method needs the total field", "give --total-field"
            )
        known = local.support > 0
        finite = finite_in_mask(local.field, known, "local field")
        # what lies outside the support is unknown: a number there must not reach a method
        local = replace(local, field=torch.where(known, finite, 0.0))
        if local.noise is None:
            local = replace(local, noise=estimate_noise(local.field, known))
            noise_source = "estimated: median of the high-passed local field, one number"
        log.info("inverting")
        result = self._finish(self.inverter(local), noise_source)
        return replace(result, local_field=local)

    def _finish(
        self, chi: Susceptibility, noise_source: str, total: TotalField | None = None
    ) -> Reconstruction:
        if not bool(chi.chi.isfinite().all()):
            raise NumericalError(
                type(self.inverter).__name__,
                "the map holds NaN or infinity",
                "check its parameters",
            )
        mean = float(chi.chi[chi.mask].mean())
        referenced = chi.referenced_to_mean() if self.reference == "mean" else chi
        return Reconstruction(referenced, mean, noise_source, chi.flags, total_field=total)


def scan_evidence(scan: Scan) -> Evidence:
    """Give what masking methods see of a scan; phase quality is worked out for who asks."""
    magnitude, first = combined_magnitude(scan), scan.magnitude[0]
    return Evidence(magnitude, scan.geometry, first, lambda: quality_map(scan))
