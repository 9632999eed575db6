"""Several inverters on the same field, mask, noise and reference: scores, seconds, memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from qsmnet.errors import NumericalError, UsageError
from qsmnet.evaluate.cost import measure
from qsmnet.evaluate.metrics import score
from qsmnet.evaluate.spectrum import ErrorSpectrum, error_spectrum
from qsmnet.volumes import LocalField, Susceptibility

#: An `qsmnet.inversion.inverter.Inverter`, or any function of its signature.
Method = Callable[[LocalField], Susceptibility]


@dataclass(frozen=True)
class Result:
    """One method's row.

    Parameters
    ----------
    inverter
        Its name.
    chi
        Susceptibility in ppm relative to its mean over the mask, on the CPU; None when it failed.
    seconds, peak_memory_mib
        Cost of the call (see `qsmnet.evaluate.cost.Measured`).
    scores
        As `qsmnet.evaluate.metrics.score`; empty without truth or when the method failed.
    spectrum
        Relative error over the dipole kernel's magnitude; None without truth or when it failed.
    error
        Why the method failed, in one line; empty when it did not.
    flags
        Warnings of the method.
    """

    inverter: str
    chi: Float[Tensor, "x y z"] | None
    seconds: float
    peak_memory_mib: float
    scores: dict[str, float] = field(default_factory=dict)
    spectrum: ErrorSpectrum | None = None
    error: str = ""
    flags: tuple[str, ...] = ()


def compare(
    local: LocalField,
    truth: Float[Tensor, "x y z"] | None,
    inverters: Mapping[str, Method],
    segmentation: Integer[Tensor, "x y z"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Result]:
    """Run every inverter on one local field and score it.

    All methods get the same `LocalField` object. Every map, and the truth, is referenced to its
    mean over the mask before it is scored, since k = 0 is not in the data and methods differ in
    what they leave there; a method that returns a smaller mask is referenced over that, and scored
    as 0 outside of it.

    Parameters
    ----------
    local
        The field, one volume.
    truth
        Susceptibility in ppm, or None to measure cost alone.
    inverters
        By name, in the order of the table.
    segmentation
        QSM-CI labels for the regional scores.
    progress
        Called with each name before its method runs.

    Returns
    -------
    list of Result
        One an inverter; a method that raises has its row too, with ``error`` set.

    Raises
    ------
    ValueError
        If the truth is not finite in the mask, or shapes disagree.
    """
    results = []
    for name, inverter in inverters.items():
        if progress is not None:
            progress(name)
        results.append(_run(name, inverter, local, truth, segmentation))
    return results


def _run(
    name: str,
    inverter: Method,
    local: LocalField,
    truth: Tensor | None,
    segmentation: Tensor | None,
) -> Result:
    measured = measure(lambda: _invert(name, inverter, local), local.field.device)
    cost = measured.seconds, measured.peak_memory_mib
    if measured.value is None:
        return Result(name, None, *cost, error=measured.error)
    chi = referenced(measured.value, local.mask).cpu()
    scores, spectrum = _judge(chi, truth, local, segmentation)
    return Result(name, chi, *cost, scores, spectrum, flags=measured.value.flags)


def _invert(name: str, inverter: Method, local: LocalField) -> Susceptibility:
    takes = getattr(inverter, "takes", "local_field")
    if takes != "local_field":
        problem = f"takes {takes}, not one local field"
        raise UsageError(name, problem, "compare methods of one kind of input")
    result = inverter(local)
    if not bool(torch.isfinite(result.chi[local.mask]).any()):
        raise NumericalError(name, "gave no finite value", "check the field and the parameters")
    return result


def referenced(result: Susceptibility, mask: Bool[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
    """Chi in ppm without its mean where it is an estimate; NaN stays, 0 elsewhere."""
    estimated = mask & result.mask
    mean = result.chi[estimated & torch.isfinite(result.chi)].double().mean()
    return torch.where(estimated, result.chi - mean.to(result.chi.dtype), 0.0)


def _judge(
    chi: Tensor, truth: Tensor | None, local: LocalField, segmentation: Tensor | None
) -> tuple[dict[str, float], ErrorSpectrum | None]:
    if truth is None:
        return {}, None
    mask = local.mask.cpu()
    true = referenced(Susceptibility(truth.cpu(), mask), mask)
    labels: np.ndarray | None = None if segmentation is None else segmentation.cpu().numpy()
    scores = score(chi.numpy(), true.numpy(), mask.numpy(), labels)
    return scores, error_spectrum(chi, true, mask, local.geometry)
