"""``qsmnet reconstruct``: a scan, a total field or a local field in, a susceptibility map out."""

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qsmnet.cli import Parser
from qsmnet.cli.compose import checked_weights, compose, settings
from qsmnet.cli.preset import STAGES, Choice, Preset
from qsmnet.cli.reconstruct_inputs import Inputs, input_files, read_inputs
from qsmnet.cli.reconstruct_memory import check_memory
from qsmnet.cli.reconstruct_outputs import planned_files, sidecar, write_outputs
from qsmnet.cli.reconstruct_r2star import R2STAR_FILES, fit_r2star, r2star_maps
from qsmnet.cli.reconstruct_reference import apply_reference, read_regions
from qsmnet.errors import UsageError
from qsmnet.io.files import prepare_output_folder
from qsmnet.pipeline import Pipeline, Reference
from qsmnet.r2star.r2star import R2Star
from qsmnet.volumes import LocalField, Scan

log = logging.getLogger(__name__)

_PRESET = "default"

_EXAMPLES = """examples:
  qsmnet reconstruct --phase phase.nii.gz --magnitude magnitude.nii.gz \\
      --echo-times 0.004 0.008 0.012 --b0 7 --inverter kqsm --out chi
  qsmnet reconstruct --phase p1.nii p2.nii --magnitude m1.nii m2.nii --echo-times 0.005 0.010 \\
      --b0 3 --phase-range -4096 4094 --mask brain.nii.gz --inverter tv --keep --out chi
  qsmnet reconstruct --local-field field.nii.gz --mask mask.nii.gz --inverter tkd \\
      --set threshold=0.2 --noise 0.001 --out chi

Fields and susceptibility are in ppm, echo times in s, B0 in T. The direction of B0 comes from
the affine. Writes chi.nii.gz, chi.json and report.png, all or nothing.
For research: not a medical device."""


def main(argv: list[str]) -> int:
    """Reconstruct; nothing is written unless everything succeeded."""
    args = _parser().parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(_threads(args.threads))
    folder = prepare_output_folder(
        args.out, _planned(args), args.overwrite, [f for _, f in input_files(args)]
    )
    preset: Preset = compose("preset", args.preset, (), args.config_dir)
    args.choices = _choices(args, preset)
    args.reference = args.reference or preset.reference
    inverter = args.choices["inverter"]
    weights = checked_weights(inverter.name, inverter.overrides, args.config_dir)
    pipeline, r2star = _pipeline(args), _r2star(args)
    inputs = read_inputs(args)
    for flag in inputs.flags:
        log.warning("warning: %s", flag)
    if not args.no_memory_check:
        _check_memory(args, pipeline, r2star, inputs)
    rates = fit_r2star(r2star, inputs)
    inputs, region = read_regions(args, inputs, rates)
    result = pipeline.reconstruct(inputs.data, inputs.mask)
    result, reference = apply_reference(args.reference, result, inputs.data.csf, region)
    for flag in result.flags:
        log.warning("warning: %s", flag)
    record = sidecar(inputs, result, _methods(args, inputs), reference)
    record["weights"] = weights
    record["preset"] = args.preset
    title, maps = f"QSM, {inverter.name}", r2star_maps(args, inputs, rates, record)
    write_outputs(folder, inputs, result, record, title, args.keep, args.overwrite, maps)
    names = ["chi.nii.gz", *(f"{each.name}.nii.gz" for each in maps), "report.png"]
    log.info("wrote %s", ", ".join(str(folder / name) for name in names))
    return 0


def _planned(args: argparse.Namespace) -> tuple[str, ...]:
    return planned_files(args.keep) + (R2STAR_FILES if args.r2star else ())


def _choices(args: argparse.Namespace, preset: Preset) -> dict[str, Choice]:
    """Take the preset's method of each stage, and what the command line changes of it."""
    chosen = {
        stage: preset.choice(stage).changed(getattr(args, stage), _overrides(args, stage))
        for stage in STAGES
    }
    if _takes_radii(args):
        _check_takes_radii(args, chosen["background"].name)
    return chosen


def _takes_radii(args: argparse.Namespace) -> bool:
    # beside a local field they have no effect at all, which is told where inputs are read
    return args.max_radius is not None and args.local_field is None


def _check_takes_radii(args: argparse.Namespace, background: str) -> None:
    parameters = settings("background", background, (), args.config_dir)
    if "radii" not in parameters:
        own = f"--set-background radius={args.max_radius:g}, " if "radius" in parameters else ""
        raise UsageError(
            "--max-radius",
            f"is for vsharp, and the background is removed by {background}",
            f"use {own}--background vsharp, or leave it out",
        )


def _pipeline(args: argparse.Namespace) -> Pipeline:
    def method(stage: str) -> Any:  # noqa: ANN401 the type is the config's business
        choice = args.choices[stage]
        return compose(stage, choice.name, choice.overrides, args.config_dir)

    # a mask is found, or read, with the inputs; the pipeline still names a method
    stages = {stage: method(stage) for stage in STAGES if stage != "mask"}
    reference: Reference = "mean" if args.reference == "mean" else "none"
    return Pipeline(mask=compose("mask", "whole"), reference=reference, **stages)


def _r2star(args: argparse.Namespace) -> dict[str, R2Star]:
    asked = [args.r2star] if args.r2star else []
    return {name: compose("r2star", name, (), args.config_dir) for name in asked}


def _running(inputs: Inputs) -> tuple[str, ...]:
    """Stages that are left after what was given, the mask's too if it had to be found."""
    given = any(role == "mask" for role, _ in inputs.files)
    skipped = {"mask"} if given else set()
    if not isinstance(inputs.data, Scan):
        skipped |= {"offset", "unwrap", "fit"}
    if isinstance(inputs.data, LocalField):
        skipped |= {"background"}
    return tuple(stage for stage in STAGES if stage not in skipped)


def _check_memory(
    args: argparse.Namespace, pipeline: Pipeline, r2star: Mapping[str, R2Star], inputs: Inputs
) -> None:
    stages: dict[tuple[str, str], object] = {
        (stage, args.choices[stage].name): getattr(pipeline, stage)
        for stage in _running(inputs)
        if stage != "mask"  # found by now
    }
    stages |= {("r2star", name): method for name, method in r2star.items()}
    mask = inputs.object_mask if isinstance(inputs.data, Scan) else inputs.data.mask
    if mask is not None:
        check_memory(stages, inputs.data, mask)


def _threads(number: int) -> int:
    # far beyond, the threads' memory runs out, and torch ends the process without a word
    most = 4 * (os.cpu_count() or 1)
    if not 1 <= number <= most:
        raise UsageError("--threads", f"{number} is not 1 to {most}", "give the number of cores")
    return number


def _overrides(args: argparse.Namespace, group: str) -> Sequence[str]:
    if group == "inverter":
        return [*args.set, *([f"weights={args.weights}"] if args.weights else [])]
    chosen: list[str] = getattr(args, f"set_{group}")
    if group == "background" and _takes_radii(args):
        return [*chosen, f"radii={_radii(args.max_radius)}"]
    return chosen


def _radii(largest: float) -> list[float]:
    """From ``largest`` down to 1 mm in steps of 1 mm."""
    if not 1 <= largest <= 50:
        raise UsageError("--max-radius", f"{largest:g} mm is not 1 to 50 mm", "give mm, such as 12")
    return [largest - step for step in range(int(largest))]


def _methods(args: argparse.Namespace, inputs: Inputs) -> dict[str, dict[str, object]]:
    """Record the settings of the stages that ran."""
    chosen = {stage: args.choices[stage] for stage in _running(inputs)}
    return {
        stage: {
            "name": choice.name,
            **settings(stage, choice.name, choice.overrides, args.config_dir),
        }
        for stage, choice in chosen.items()
    }


def _parser() -> Parser:
    parser = Parser(
        prog="qsmnet reconstruct",
        description="A scan, a total field or a local field in, a susceptibility map (ppm) out.",
        epilog=_EXAMPLES,
    )
    _add_inputs(parser)
    _add_methods(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="DIR", help="output folder")
    output.add_argument("--keep", action="store_true", help="write every intermediate, too")
    output.add_argument(
        "--r2star",
        metavar="NAME",
        help="write R2* (1/s) of a scan's magnitude, too: arlo (three echoes or more, evenly "
        "spaced), log_linear or nlls (two or more)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    output.add_argument(
        "--reference",
        metavar="mean|csf|FILE|none",
        help="zero of the map (default: the preset's): its mean over the mask, over cerebrospinal "
        "fluid, over a region (a mask file), or as the method left it",
    )
    output.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    output.add_argument(
        "--no-memory-check", action="store_true", help="try, even if memory seems too small"
    )
    output.add_argument("--debug", action="store_true", help="traceback on failure")
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    scan = parser.add_argument_group("a scan")
    scan.add_argument("--phase", nargs="+", metavar="FILE", help="4-D, or one file an echo")
    scan.add_argument("--magnitude", nargs="+", metavar="FILE", help="4-D, or one file an echo")
    scan.add_argument("--echo-times", nargs="+", type=float, metavar="S", help="in s, one an echo")
    scan.add_argument("--b0", type=float, metavar="T", help="main field in tesla")
    scan.add_argument(
        "--phase-range",
        nargs=2,
        type=float,
        metavar=("LO", "HI"),
        help="the stored values that mean -pi and pi; needed where they cannot be recognised",
    )
    scan.add_argument(
        "--phase-sign", type=int, metavar="SIGN", help="-1 flips the sign of the phase"
    )
    field = parser.add_argument_group("or a field, in ppm")
    field.add_argument("--total-field", metavar="FILE", help="field of all sources")
    field.add_argument("--local-field", metavar="FILE", help="background removed")
    field.add_argument(
        "--field-support",
        metavar="FILE",
        help="where the local field is data, 0 to 1 (default: mask)",
    )
    field.add_argument(
        "--noise", metavar="PPM|FILE", help="standard deviation of the field (default: estimated)"
    )
    both = parser.add_argument_group("object and orientation")
    both.add_argument(
        "--mask",
        metavar="FILE|NAME",
        help="a file; or a method: bet (a head's brain), magnitude (default for a scan), otsu, "
        "consensus, two_pass, quality; 'whole' for a grid that is all object",
    )
    both.add_argument(
        "--csf",
        metavar="FILE|auto",
        help="where cerebrospinal fluid is: a mask, or found in R2* of a scan's echoes; a "
        "reference, and uniform for --inverter medi",
    )
    both.add_argument(
        "--b0-dir",
        nargs=3,
        type=float,
        metavar=("X", "Y", "Z"),
        help="direction of B0 in voxel axes (default: from the affine)",
    )


def _add_methods(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("methods (names of configs; SETTING is name=value)")
    group.add_argument(
        "--preset",
        default=_PRESET,
        metavar="NAME",
        help="methods of every stage that is not named here: default, consensus2024, fast",
    )
    group.add_argument("--inverter", metavar="NAME", help="dipole inversion")
    group.add_argument(
        "--weights", metavar="FILE", help="your own checkpoint, for a learned inverter"
    )
    group.add_argument("--offset", metavar="NAME", help="removes the phase at TE = 0")
    group.add_argument("--unwrap", metavar="NAME", help="unwrapping in space")
    group.add_argument("--fit", metavar="NAME", help="echoes to a field")
    group.add_argument("--background", metavar="NAME", help="removes the field of sources outside")
    group.add_argument(
        "--max-radius",
        type=float,
        metavar="MM",
        help="largest sphere of --background vsharp (default: 12)",
    )
    for option, what in (
        ("--set", "inverter"),
        ("--set-offset", "offset"),
        ("--set-unwrap", "unwrap"),
        ("--set-fit", "fit"),
        ("--set-background", "background"),
        ("--set-mask", "mask"),
    ):
        group.add_argument(
            option,
            nargs="+",
            action="extend",
            default=[],
            metavar="SETTING",
            help=f"parameters of --{what}",
        )
    group.add_argument("--config-dir", metavar="DIR", help="folder with your own configs")
