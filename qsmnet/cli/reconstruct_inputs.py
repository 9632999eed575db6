"""What `qsmnet reconstruct` reads: files and numbers to a scan or a field, or why not."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from qsmnet.cli.compose import compose
from qsmnet.cli.preset import Choice
from qsmnet.errors import InconsistentError, PhysicsError, UsageError
from qsmnet.geometry import Geometry
from qsmnet.io.nifti import Volume, check_same_grid, read_mask, read_volume
from qsmnet.mask.finite import finite_in_mask
from qsmnet.mask.given import mask_flags
from qsmnet.mask.mask import Evidence, MaskPair, find_mask
from qsmnet.phase.scale import phase_to_radians
from qsmnet.pipeline import scan_evidence
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import LocalField, Scan, TotalField

# the longest echo of any in vivo gradient echo scan; above, the number is in ms
_ECHO_BOUNDS = (1e-4, 0.12)
_B0_BOUNDS = (0.05, 14.0)
# medians in ppm above which a field is in another unit: tissue makes 0.05, air and metal a few
_LOCAL_FIELD_BOUND, _TOTAL_FIELD_BOUND = 1.0, 20.0
# options that would be ignored, by what is given
_SCAN_STAGES = ("offset", "set_offset", "unwrap", "set_unwrap", "fit", "set_fit")
_SCAN_ONLY = ("phase_range", "phase_sign", "r2star", *_SCAN_STAGES)
#: Zeros of a map that are not files.
REFERENCES = ("mean", "csf", "none")
_USELESS = {
    "phase": ("field_support", "noise"),
    "total_field": (*_SCAN_ONLY, "field_support"),
    "local_field": (*_SCAN_ONLY, "background", "set_background", "max_radius"),
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """A scan or a field, and what the record needs to know of it.

    Parameters
    ----------
    data
        Where the pipeline starts.
    mask
        Of a scan, or both masks of two passes; fields hold their own.
    reference
        Volume whose grid and affine the output takes.
    files
        (role, file) of everything that was read.
    record
        Facts for the sidecar: echo times, B0, how the phase was stored.
    flags
        Warnings in words.
    """

    data: Scan | TotalField | LocalField
    mask: Tensor | MaskPair | None
    reference: Volume
    files: tuple[tuple[str, Path], ...]
    record: dict[str, object]
    flags: tuple[str, ...] = ()

    @property
    def object_mask(self) -> Tensor | None:
        """``mask``, of two the whole object's."""
        return self.mask.filled if isinstance(self.mask, MaskPair) else self.mask


def input_files(args: argparse.Namespace) -> tuple[tuple[str, Path], ...]:
    """(role, file) of every file that the arguments name."""
    named = [("phase", args.phase), ("magnitude", args.magnitude)]
    named += [("total_field", [args.total_field]), ("local_field", [args.local_field])]
    named += [
        ("field_support", [args.field_support]),
        ("weights", [args.weights] if str(args.weights).endswith(".safetensors") else []),
    ]
    named += [("mask", [args.mask] if _is_file(args.mask) else [])]
    # another command has neither
    csf, zero = getattr(args, "csf", None), getattr(args, "reference", "none")
    named += [("csf", [] if csf == "auto" else [csf])]
    named += [("reference", [] if zero in REFERENCES else [zero])]
    named += [("noise", [args.noise] if _number(args.noise) is None else [])]
    return tuple((role, Path(f)) for role, files in named for f in files or () if f is not None)


def read_inputs(args: argparse.Namespace) -> Inputs:
    """Read and check everything.

    Raises
    ------
    UsageError, UnreadableError, InconsistentError, PhysicsError, NumericalError
        One line each: see `qsmnet.errors`.
    """
    _check_choice(args)
    return _read_scan(args) if args.phase else _read_field(args)


def check_echo_times(echo_times: Sequence[float], echoes: int) -> tuple[float, ...]:
    """Echo times in s: one an echo, increasing, 0.1 to 120 ms.

    Raises
    ------
    InconsistentError
        If their number is not the number of echoes.
    PhysicsError
        If one is implausible (in ms, mostly), or they do not increase.
    """
    listed = " ".join(f"{time:g}" for time in echo_times)
    if len(echo_times) != echoes:
        raise InconsistentError(
            "--echo-times",
            f"{len(echo_times)} given ({listed}) for {echoes} echoes",
            "give one echo time in s for each echo",
        )
    low, high = _ECHO_BOUNDS
    if not all(low <= time <= high for time in echo_times):
        ms = all(low <= time / 1000 <= high for time in echo_times)
        fix = (
            f"give seconds: {' '.join(f'{t / 1000:g}' for t in echo_times)}"
            if ms
            else "give seconds"
        )
        raise PhysicsError("--echo-times", f"{listed} s is not between {low:g} and {high:g} s", fix)
    if any(then <= first for first, then in pairwise(echo_times)):
        raise PhysicsError(
            "--echo-times",
            f"{listed} does not increase",
            "give echoes and times in order, once each",
        )
    return tuple(echo_times)


def check_b0(b0: float) -> float:
    """Check the main field in T, 0.05 to 14.

    Raises
    ------
    PhysicsError
        If it is not (a Larmor frequency or mT was given).
    """
    low, high = _B0_BOUNDS
    if low <= b0 <= high:
        return b0
    # in this order: 14 T is 596 MHz, so that a larger number cannot be a frequency
    hint = {42.577: " (that looks like MHz)", 1e3: " (that looks like mT)"}
    guess = next((text for unit, text in hint.items() if low <= b0 / unit <= high), "")
    raise PhysicsError(
        "--b0", f"{b0:g} T is not between {low:g} and {high:g} T{guess}", "give tesla"
    )


def _check_choice(args: argparse.Namespace) -> None:
    given = [n for n in ("phase", "total_field", "local_field") if getattr(args, n)]
    if len(given) != 1:
        raise UsageError(
            "qsmnet reconstruct",
            f"needs one of --phase, --total-field and --local-field, got {len(given)}",
            "see qsmnet reconstruct --help",
        )
    data = "--" + given[0].replace("_", "-")
    needed = ("magnitude", "echo_times", "b0") if args.phase else ("mask",)
    missing = [name for name in needed if getattr(args, name) is None]
    if missing:
        raise UsageError(data, f"needs {_options(missing)}", "add it")
    _refuse(args, _USELESS[given[0]], data)
    if _is_file(args.mask):
        _refuse(args, ("set_mask",), f"the mask file {args.mask}")


def _refuse(args: argparse.Namespace, names: Sequence[str], data: str) -> None:
    """Refuse options that would be ignored: whoever gives them expects something of them."""
    extra = [name for name in names if getattr(args, name) not in (None, [], ())]
    if extra:
        raise UsageError(_options(extra), f"has no effect with {data}", "leave it out")


def _options(names: Sequence[str]) -> str:
    return " and ".join("--" + name.replace("_", "-") for name in names)


def _read_scan(args: argparse.Namespace) -> Inputs:
    phase, magnitude = _read_echoes(args.phase), _read_echoes(args.magnitude)
    check_same_grid(phase[0], *phase[1:], *magnitude)
    raw, size = _stack(phase), _stack(magnitude)
    if raw.shape != size.shape:
        raise InconsistentError(
            magnitude[0].path,
            f"{size.shape[0]} echoes of magnitude for {raw.shape[0]} of phase",
            "give the same echoes of both",
        )
    if bool((size < 0).any()):
        raise InconsistentError(
            magnitude[0].path,
            "the magnitude has negative values",
            "check that --phase and --magnitude are not swapped",
        )
    times = check_echo_times(args.echo_times, raw.shape[0])
    b0, geometry = check_b0(args.b0), _geometry(phase[0], args.b0_dir)
    phase_range = tuple(args.phase_range) if args.phase_range else None
    sign = 1 if args.phase_sign is None else args.phase_sign
    wrapped, how = phase_to_radians(raw, phase_range, sign, phase[0].path.name)
    scan = Scan(wrapped, size, times, b0, geometry)
    found = _mask(args, phase[0], scan_evidence(scan))
    mask = found.filled if isinstance(found, MaskPair) else found
    scan = replace(
        scan,
        wrapped_phase=finite_in_mask(wrapped, mask, phase[0].path),
        magnitude=finite_in_mask(size, mask, magnitude[0].path),
    )
    _check_signal(scan.magnitude, mask, [volume.path for volume in magnitude])
    record = {"echo_times_s": list(times), "b0_t": b0, "phase_stored_as": how}
    flags = _mask_flags(args, mask, scan.magnitude[0])
    return Inputs(scan, found, phase[0], input_files(args), record, flags)


def _read_field(args: argparse.Namespace) -> Inputs:
    volume = read_volume(args.local_field or args.total_field)
    magnitude = [_read_magnitude(args.magnitude)] if args.magnitude else []
    check_same_grid(volume, *magnitude)
    geometry = _geometry(volume, args.b0_dir)
    shown = magnitude[0].tensor() if magnitude else None
    found = _mask(args, volume, None if shown is None else Evidence(shown, geometry))
    mask = found.filled if isinstance(found, MaskPair) else found
    support = _support(args.field_support, volume, mask)
    field = finite_in_mask(volume.tensor(), mask if support is None else support > 0, volume.path)
    _check_unit(field, mask, volume.path, bool(args.local_field))
    if shown is not None:
        shown = finite_in_mask(shown, mask, magnitude[0].path)
        _check_signal(shown[None], mask, [magnitude[0].path])
    scale, record = _phase_scale(args)
    noise = _noise(args.noise, volume, mask)
    data: TotalField | LocalField
    if args.total_field:
        data = TotalField(field, mask, geometry, noise, shown, scale)
    else:
        data = LocalField(field, mask, geometry, support, noise, shown, scale)
    flags = _mask_flags(args, mask, shown)
    return Inputs(data, None, volume, input_files(args), record, flags)


def _read_echoes(paths: Sequence[str]) -> list[Volume]:
    if len(paths) == 1:
        return [read_volume(paths[0], ndim=4)]
    return [read_volume(path) for path in paths]


def _read_magnitude(paths: Sequence[str]) -> Volume:
    volumes = _read_echoes(paths)
    check_same_grid(volumes[0], *volumes[1:])
    combined = _stack(volumes).square().sum(0).sqrt().numpy()
    return replace(volumes[0], data=combined)


def _stack(volumes: Sequence[Volume]) -> Tensor:
    return torch.cat([v.tensor() if v.data.ndim == 4 else v.tensor()[None] for v in volumes])


def _check_signal(magnitude: Tensor, mask: Tensor, paths: Sequence[Path]) -> None:
    """Refuse an echo without signal: its phase means nothing, and its noise has no bound."""
    for number, echo in enumerate(magnitude):
        if not bool((echo[mask] > 0).any()):
            which = f"echo {number + 1} of the magnitude" if len(magnitude) > 1 else "the magnitude"
            raise InconsistentError(
                paths[min(number, len(paths) - 1)],
                f"{which} is zero everywhere in the mask",
                "export the magnitude again, or leave that echo out of all files",
            )


def _geometry(volume: Volume, b0_dir: Sequence[float] | None) -> Geometry:
    if b0_dir is None and not volume.b0_known:
        raise PhysicsError(
            volume.path,
            "has no scanner orientation, so that the direction of B0 is not known",
            "give it in voxel axes: --b0-dir X Y Z",
        )
    if b0_dir is None:
        return volume.geometry
    try:
        return Geometry(volume.geometry.voxel_size, tuple(b0_dir))  # type: ignore[arg-type]
    except (ValueError, OverflowError) as error:
        listed = " ".join(f"{component:g}" for component in b0_dir)
        fix = "give three numbers about 1, not all zero, such as 0 0 1"
        raise UsageError("--b0-dir", f"{listed} is no direction", fix) from error


def _is_file(mask: str | None) -> bool:
    # names of methods have neither a dot nor a slash
    if mask is None:
        return False
    return "." in mask or "/" in mask or os.path.exists(mask)  # noqa: PTH110 Path's may raise


def _mask(
    args: argparse.Namespace, reference: Volume, evidence: Evidence | None
) -> Tensor | MaskPair:
    if _is_file(args.mask):
        volume = read_mask(args.mask)
        check_same_grid(reference, volume)
        return volume.tensor()
    choice: Choice = args.choices["mask"] if args.choices else Choice(args.mask)
    method = compose("mask", choice.name, choice.overrides, args.config_dir)
    if evidence is None and choice.name != "whole":
        fix = "add it, or give a mask file"
        raise UsageError("--mask", f"{choice.name} needs --magnitude", fix)
    return find_mask(method, evidence or Evidence(reference.tensor(), reference.geometry))


def _mask_flags(
    args: argparse.Namespace, mask: Tensor, magnitude: Tensor | None
) -> tuple[str, ...]:
    return () if args.mask == "whole" else mask_flags(mask, magnitude)


def _support(path: str | None, reference: Volume, mask: Tensor) -> Tensor | None:
    if path is None:
        return None
    volume = read_volume(path)
    check_same_grid(reference, volume)
    support = volume.tensor()
    if not bool(((support >= 0) & (support <= 1)).all()) or not bool((support[mask] > 0).any()):
        raise InconsistentError(
            path,
            "a field support lies in [0, 1] and overlaps the mask",
            "write 0 where nothing is known",
        )
    return support


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _noise(text: str | None, reference: Volume, mask: Tensor) -> Tensor | float | None:
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        if not (math.isfinite(number) and 0 <= number < 1):
            raise PhysicsError(
                "--noise",
                f"{text} ppm is not between 0 and 1",
                "give the standard deviation in ppm",
            )
        return number
    volume = read_volume(text)
    check_same_grid(reference, volume)
    noise = finite_in_mask(volume.tensor(), mask, volume.path)
    if bool((noise < 0).any()):
        raise PhysicsError(text, "a standard deviation is not negative", "give a map in ppm")
    return noise


def _check_unit(field: Tensor, mask: Tensor, path: Path, local: bool) -> None:
    inside = field[mask]
    typical = float((inside - inside.median()).abs().median())
    bound = _LOCAL_FIELD_BOUND if local else _TOTAL_FIELD_BOUND
    if typical > bound:
        raise PhysicsError(
            path,
            f"the field deviates by {typical:.3g} from its median, too much for ppm",
            "convert it: ppm = Hz / (42.576 B0) = rad / (2 pi 42.576 B0 TE)",
        )
    if bool(inside.min() == inside.max()):
        raise PhysicsError(path, "the field is the same everywhere in the mask", "check the file")


def _phase_scale(args: argparse.Namespace) -> tuple[float | None, dict[str, object]]:
    if not args.echo_times or args.b0 is None:
        return None, {}
    times, b0 = check_echo_times(args.echo_times, len(args.echo_times)), check_b0(args.b0)
    return radians_per_ppm(times[-1], b0), {"echo_times_s": list(times), "b0_t": b0}
