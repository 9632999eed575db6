"""Scores that the bars are about, and how they are held."""

from pathlib import Path

import numpy as np
import yaml
from torch import Tensor

from qsmnet.evaluate.metrics import score

_TOLERANCE = 0.02


def bars(stage: str) -> dict[str, dict[str, dict[str, float]]]:
    """``{head: {method: {score: value}}}`` of ``<stage>.yaml``."""
    read: dict[str, dict[str, dict[str, float]]] = yaml.safe_load(
        (Path(__file__).parent / f"{stage}.yaml").read_text()
    )
    return read


def chi_scores(chi: Tensor, truth: Tensor, mask: Tensor) -> dict[str, float]:
    """NRMSE in %, XSIM, and the slope of the map on the truth, about their means in the mask."""
    inside = mask.numpy()
    found, true = chi.double().numpy(), truth.double().numpy()
    found, true = found - found[inside].mean(), true - true[inside].mean()
    scores = score(found, true, inside)
    slope = float(np.dot(found[inside], true[inside]) / np.dot(true[inside], true[inside]))
    return {"nrmse": scores["nrmse"], "xsim": scores["xsim"], "slope": slope}


def assert_no_worse(found: dict[str, float], bar: dict[str, float]) -> None:
    """Errors at most 2 % above their bar, similarities at most 0.02 below, slopes as near to 1."""
    told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    for name, value in bar.items():
        if name == "slope":
            worse = abs(found[name] - 1) > abs(value - 1) + _TOLERANCE
        elif name == "xsim":
            worse = found[name] < value - _TOLERANCE
        else:
            worse = found[name] > value * (1 + _TOLERANCE)
        assert not worse, f"{name} is worse than its bar {value}: {told}"
