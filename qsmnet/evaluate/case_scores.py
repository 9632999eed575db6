"""Scores of one map on one subject: the whole, each region, lesions, and where in k-space."""

import math

import numpy as np
import torch

from qsmnet.evaluate.case_inputs import Case
from qsmnet.evaluate.metrics import SCORES, FloatArray, dgm_slope, nrmse, regional_scores
from qsmnet.evaluate.regions import QSM_CI_NAMES
from qsmnet.evaluate.spectrum import error_spectrum
from qsmnet.evaluate.stages import Scores, referenced_pair, score_map
from qsmnet.simulate import tissue
from qsmnet.volumes import Susceptibility

#: Regions whose error is told, by label.
REGIONS = {label: QSM_CI_NAMES[label].replace(" ", "_") for label in range(1, 12)}
#: Lesions whose mean is told over the true one, by label.
LESIONS = {tissue.HAEMORRHAGE: "bleed", tissue.CALCIFICATION: "calcification"}
#: Error over |D|, from 0 to 2/3 in equal bins.
SPECTRUM = tuple(f"e{i:02d}" for i in range(20))

_QUICK = ("slope", "nrmse_inner", "dgm_slope", *(f"{name}_ratio" for name in LESIONS.values()))
_REGIONAL = tuple(f"{kind}_{name}" for name in REGIONS.values() for kind in ("bias", "rmse"))
#: What `score_case` can return.
COLUMNS = (*SCORES, *_QUICK, *_REGIONAL, *SPECTRUM)


def score_case(case: Case, found: Susceptibility, detailed: bool = True) -> Scores:
    r"""Score a map of the case's field; map and truth relative to their means in the true mask.

    What a map leaves out of the mask counts as zero.

    Parameters
    ----------
    detailed
        Else without HFEN, correlation, coverage and the error over \|D\|, which take longest.

    Returns
    -------
    dict
        NRMSE in %, ``bias_`` (mean error) and ``rmse_`` of each region in ppm; ``bleed_ratio`` and
        ``calcification_ratio``: the mean in the lesion over the true mean; the others as
        `qsmnet.evaluate.metrics.score`. NaN for a region that is not there.
    """
    subject = case.subject
    result = case.restore(found)
    map_, true = referenced_pair(result, subject.chi, subject.mask)
    mask, labels = subject.mask.numpy(), subject.segmentation.numpy()
    inner = subject.inner.numpy()
    labels = np.where(mask, labels, 0)
    scores = {"nrmse_inner": nrmse(map_[inner], true[inner])[0]}
    scores |= {"dgm_slope": dgm_slope(map_, true, labels)}
    for label, name in LESIONS.items():
        scores[f"{name}_ratio"] = _ratio(map_, true, labels == label)
    scores |= score_map(map_, true, mask, labels if detailed else None)
    scores |= regional_scores(map_, true, mask, labels) | _regions(map_ - true, labels)
    return scores | (_spectrum(case, map_, true) if detailed else {})


def _regions(error: FloatArray, labels: np.ndarray) -> Scores:
    scores: Scores = {}
    for label, name in REGIONS.items():
        inside = error[labels == label]
        scores[f"bias_{name}"] = float(inside.mean()) if inside.size else math.nan
        scores[f"rmse_{name}"] = float(np.sqrt((inside**2).mean())) if inside.size else math.nan
    return scores


def _spectrum(case: Case, found: FloatArray, true: FloatArray) -> Scores:
    chi, truth = torch.from_numpy(found).float(), torch.from_numpy(true).float()
    subject = case.subject
    curve = error_spectrum(chi, truth, subject.mask, subject.geometry, len(SPECTRUM))
    return dict(zip(SPECTRUM, curve.error, strict=True))


def _ratio(found: FloatArray, true: FloatArray, region: np.ndarray) -> float:
    return float(found[region].mean() / true[region].mean()) if region.any() else math.nan
