"""Every stage of a pipeline by itself, judged on a head whose truth is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from qsmnet.evaluate.compare import referenced
from qsmnet.evaluate.heads import Scene
from qsmnet.evaluate.metrics import FloatArray, correlation, nrmse, score, xsim
from qsmnet.phase.align import align_echoes
from qsmnet.phase.echoes import fit_field, unwrap_echoes
from qsmnet.phase.scale import wrap
from qsmnet.phase.unwrap import Unwrap
from qsmnet.simulate.head.scan import HeadScan
from qsmnet.volumes import LocalField, Scan, Susceptibility, TotalField

Scores = dict[str, float]
#: Scan, unwrapped echoes and mask to a field.
Fit = Callable[[Scan, Tensor, Tensor], TotalField]

_TURN = 2 * math.pi


@dataclass(frozen=True)
class Mapped:
    """A field, and what it was fitted to: the scan, perhaps without its phase offset."""

    scan: Scan
    unwrapped: Float[Tensor, "echo x y z"]
    total: TotalField


def map_field(
    scan: Scan,
    mask: Bool[Tensor, "x y z"],
    unwrap: Unwrap,
    offset: Callable[[Scan, Tensor], Scan] | None = None,
    fit: Fit = fit_field,
) -> Mapped:
    """From wrapped phase to a field, as `qsmnet.pipeline` does; ``offset`` takes phi0 out."""
    scan = scan if offset is None else offset(scan, mask)
    unwrapped = unwrap_echoes(scan, mask, unwrap)
    return Mapped(scan, unwrapped, fit(scan, unwrapped, mask))


def map_echoes_alone(scan: Scan, mask: Bool[Tensor, "x y z"], unwrap: Unwrap) -> Mapped:
    """Map by the common baseline: each echo unwrapped alone, an unweighted line through all.

    Whole echoes are aligned by their medians, without which the line would be of no use.
    """
    parts = zip(scan.wrapped_phase, scan.magnitude, scan.echo_times, strict=True)
    singles = [
        replace(scan, wrapped_phase=phase[None], magnitude=magnitude[None], echo_times=(time,))
        for phase, magnitude, time in parts
    ]
    alone = torch.cat([unwrap_echoes(each, mask, unwrap) for each in singles])
    unwrapped = align_echoes(alone, scan.echo_times, mask, voxelwise=False)
    flat = replace(scan, magnitude=torch.ones_like(scan.magnitude))
    return Mapped(scan, unwrapped, fit_field(flat, unwrapped, mask))


def score_mapping(scene: Scene, mapped: Mapped) -> Scores:
    """Share of voxels a multiple of 2 pi off, and the field's error, in the brain and near air."""
    head = scene.head
    removed: Tensor | float = 0.0
    if mapped.scan.wrapped_phase is not head.phase:
        # up to turns, which the true offset tells
        change = head.phase - mapped.scan.wrapped_phase
        removed = head.phase_offset + wrap(change - head.phase_offset)
    wrong = wrong_turns(mapped.unwrapped + removed, head)
    error = mapped.total.field - head.total_field
    # a constant field says nothing; the median does not follow voxels that are off
    error = error - error[head.mask].median()
    scores = {}
    for name, where in {"": head.mask, "_near_air": scene.beside_air}.items():
        scores[f"wrong{name}"] = 100 * float(wrong[:, where].float().mean())
        scores[f"nrmse{name}"] = _relative(error[where], head.total_field[where])
    return scores


def wrong_turns(
    unwrapped: Float[Tensor, "echo x y z"], head: HeadScan
) -> Bool[Tensor, "echo x y z"]:
    """Where an echo is off by multiples of 2 pi, the most common one apart."""
    turns = torch.round((unwrapped - head.unwrapped_phase) / _TURN)
    common = turns[:, head.mask].mode(dim=1).values
    return (turns - common.reshape(-1, 1, 1, 1)).abs() > 0.5


def score_local(scene: Scene, local: LocalField) -> Scores:
    """Error of a local field in one eroded mask, where what is not known counts as zero."""
    known = (local.support > 0) & scene.head.mask
    found = _inside(torch.where(known, local.field, 0.0), scene.inner)
    true = _inside(scene.head.local_field, scene.inner)
    return {
        "nrmse": nrmse(found, true)[0],
        "correlation": correlation(found, true),
        "slope": slope(found, true),
        "coverage": _share(known, scene.inner),
        "kept": _share(known, scene.head.mask),
    }


def score_chi(
    scene: Scene, result: Susceptibility, whole: bool = False, detailed: bool = True
) -> Scores:
    """Scores of a map in the brain, both relative to their means; what is left out counts as zero.

    Parameters
    ----------
    whole
        The map is on the scan's grid, not on the scene's box; of those the error in the mask
        without its rim is told, too, which no background removal leaves out.
    detailed
        All of `qsmnet.evaluate.metrics.SCORES`; else NRMSE, XSIM and slope.
    """
    head, box = scene.head, scene.box
    mask = head.mask[box]
    if whole:
        result = Susceptibility(result.chi[box], result.mask[box])
    found, true = referenced_pair(result, head.chi[box], mask)
    scores = {}
    if whole:
        inner = scene.inner[box].numpy()
        scores["nrmse_inner"] = nrmse(found[inner], true[inner])[0]
    labels = head.segmentation[box].numpy() if detailed else None
    return scores | score_map(found, true, mask.numpy(), labels)


def referenced_pair(
    result: Susceptibility, chi: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"]
) -> tuple[FloatArray, FloatArray]:
    """Map and truth in ppm, each relative to its mean; see `qsmnet.evaluate.compare.referenced`."""
    true = referenced(Susceptibility(chi, mask), mask).double().numpy()
    return referenced(result, mask).double().numpy(), true


def score_map(
    found: Float[np.ndarray, "x y z"],
    true: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    segmentation: Integer[np.ndarray, "x y z"] | None,
) -> Scores:
    """Slope, and all of `qsmnet.evaluate.metrics.SCORES`; without labels NRMSE and XSIM alone."""
    scores = {"slope": slope(found[mask], true[mask])}
    if segmentation is not None:
        return scores | score(found, true, mask, segmentation)
    error = nrmse(found[mask], true[mask])[0]
    return scores | {"nrmse": error, "xsim": xsim(found, true, mask)}


def _relative(error: Tensor, true: Tensor) -> float:
    spread = true.double() - true.double().mean()
    return 100 * float(error.double().norm() / spread.norm())


def _inside(volume: Tensor, where: Tensor) -> np.ndarray:
    values: np.ndarray = volume[where].double().numpy()
    return values


def _share(part: Tensor, of: Tensor) -> float:
    return 100 * float((part & of).sum()) / float(of.sum())


def slope(found: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> float:
    """Slope of the least-squares line of ``found`` over ``true``, of all voxels alike."""
    found, true = found - found.mean(), true - true.mean()
    return float(found @ true / (true @ true))
