"""What the map of `qsmnet reconstruct` is relative to, and what the record says of it."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace

from torch import Tensor

from qsmnet.cli.compose import compose
from qsmnet.cli.reconstruct_inputs import REFERENCES, Inputs
from qsmnet.errors import UsageError
from qsmnet.inversion.reference import NAMES, Reference, referenced, region_level
from qsmnet.io.nifti import Volume, check_same_grid, read_mask
from qsmnet.mask.csf import find_csf
from qsmnet.pipeline import Reconstruction
from qsmnet.volumes import Scan

_R2STAR = "log_linear"


def read_regions(
    args: argparse.Namespace, inputs: Inputs, r2star: Mapping[str, Tensor]
) -> tuple[Inputs, Tensor | None]:
    """Add where fluid is, if asked for, and read the mask that ``--reference`` names.

    ``r2star`` holds the maps that have been fitted, by method; the one that finds fluid is
    always of the same method, so that to write another map does not move the zero.

    Raises
    ------
    UsageError
        If fluid is asked for that nothing tells of.
    InconsistentError, UnreadableError, PhysicsError
        If a mask is on another grid, empty or unreadable, or no fluid can be found.
    """
    region = None if args.reference in REFERENCES else _mask(args.reference, inputs.reference)
    if args.csf is None and args.reference != "csf":
        return inputs, region
    if args.csf not in (None, "auto"):
        csf = _mask(args.csf, inputs.reference)
    else:
        csf = _found(args, inputs, r2star.get(_R2STAR))
    return replace(inputs, data=replace(inputs.data, csf=csf)), region


def apply_reference(
    named: str, result: Reconstruction, csf: Tensor | None, region: Tensor | None
) -> tuple[Reconstruction, dict[str, object]]:
    """Make the map relative to what ``--reference`` names, and record both numbers.

    The record holds mean and standard deviation of every
    region that is known in ppm relative to the mean over the mask, whatever the map's own zero is.
    """
    reference: Reference = named if named in REFERENCES else "region"  # type: ignore[assignment]
    chi = result.susceptibility
    known = {"csf": csf, "region": region}
    levels = {
        name: region_level(chi, where, name) for name, where in known.items() if where is not None
    }
    subtracted = {"none": 0.0, "mean": result.mean_before_reference}.get(reference)
    if subtracted is None:
        subtracted = result.mean_before_reference + levels[reference].mean
        chi = referenced(chi, reference, known[reference])
    record: dict[str, object] = {
        "method": NAMES[reference],
        "subtracted_ppm": subtracted,
        "mean_in_mask_before_ppm": result.mean_before_reference,
        "mean_in_mask_ppm": result.mean_before_reference - subtracted,
        "regions_relative_to_mean_over_mask": [asdict(level) for level in levels.values()],
    }
    return replace(result, susceptibility=chi), record


def _found(args: argparse.Namespace, inputs: Inputs, r2star: Tensor | None) -> Tensor:
    scan, mask = inputs.data, inputs.object_mask
    if not isinstance(scan, Scan) or mask is None or len(scan.echo_times) < 2:
        raise UsageError(
            "--csf" if args.csf else "--reference",
            "fluid is found in R2*, which takes a scan of two echoes or more",
            "give a mask of the fluid: --csf FILE",
        )
    if r2star is None:
        r2star = compose("r2star", _R2STAR, (), args.config_dir)(scan, mask)
    return find_csf(r2star, mask, scan.geometry)


def _mask(path: str, reference: Volume) -> Tensor:
    volume = read_mask(path)
    check_same_grid(reference, volume)
    return volume.tensor()
