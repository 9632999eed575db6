"""R2* beside the map of `qsmnet reconstruct`."""

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qsmnet.cli.compose import settings
from qsmnet.cli.reconstruct_inputs import Inputs
from qsmnet.cli.reconstruct_outputs import OwnMap
from qsmnet.r2star.r2star import R2Star
from qsmnet.volumes import Scan

log = logging.getLogger(__name__)

_NAME = "r2star"
#: Files that ``--r2star`` adds.
R2STAR_FILES = (f"{_NAME}.nii.gz", f"{_NAME}.json")
#: What R2* is made of, of all that a reconstruction reads.
_ROLES = ("magnitude", "mask")


def fit_r2star(methods: Mapping[str, R2Star], inputs: Inputs) -> dict[str, Tensor]:
    """Name of the method -> R2* in 1/s of the scan's magnitude, in the mask.

    Raises
    ------
    InconsistentError
        If a method needs more echoes, or others.
    """
    scan, mask = inputs.data, inputs.object_mask
    if not methods or mask is None or not isinstance(scan, Scan):
        return {}
    log.info("fitting R2*")
    return {name: method(scan, mask) for name, method in methods.items()}


def r2star_maps(
    args: argparse.Namespace, inputs: Inputs, fitted: Mapping[str, Tensor], chi: Mapping[str, Any]
) -> tuple[OwnMap, ...]:
    """Give each of ``fitted`` a sidecar; ``chi`` is the susceptibility's, with the inputs."""
    shared = {key: chi[key] for key in ("geometry", "acquisition", "software")}
    found = {key: value for key, value in chi["methods"].items() if key == "mask"}
    return tuple(
        OwnMap(
            _NAME,
            rates,
            {
                "description": "Effective transverse relaxation rate R2*. Research use only, not "
                "a medical device.",
                "units": "1/s",
                "statistics": _statistics(rates, inputs.object_mask),
                **shared,
                "methods": {
                    **found,
                    "r2star": {"name": name, **settings("r2star", name, (), args.config_dir)},
                },
                "inputs": [each for each in chi["inputs"] if each["role"] in _ROLES],
            },
        )
        for name, rates in fitted.items()
    )


def _statistics(rates: Tensor, mask: Tensor | None) -> dict[str, float]:
    inside = rates[mask] if mask is not None else rates
    return {
        "voxels": inside.numel(),
        "mean_per_s": float(inside.mean()),
        "median_per_s": float(inside.median()),
    }
