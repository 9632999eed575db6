"""``qsmnet compare``: several inversions of one field, scored against the truth."""

import argparse
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from qsmnet import __version__
from qsmnet.background.noise import estimate_noise
from qsmnet.cli import Parser
from qsmnet.cli.compose import checked_weights, compose, settings
from qsmnet.cli.reconstruct_inputs import Inputs, input_files, read_inputs
from qsmnet.dipole import Kernel
from qsmnet.errors import InconsistentError, QsmnetError, UsageError
from qsmnet.evaluate.compare import Method, Result, compare
from qsmnet.evaluate.regions import QSM_CI_NAMES, read_label_table, to_qsm_ci
from qsmnet.evaluate.save import RECORD, Reference, output_names, save_comparison
from qsmnet.evaluate.table import shown_rows
from qsmnet.io.files import prepare_output_folder, sha256
from qsmnet.io.nifti import Volume, check_same_grid, read_volume
from qsmnet.io.together import written_together
from qsmnet.mask.finite import finite_in_mask
from qsmnet.volumes import LocalField

# volumes are read as float32, in which this and the next whole number are one
_MOST_LABEL = 2**24

_EXAMPLE = """example:
  qsmnet compare --local-field f.nii.gz --mask m.nii.gz --truth chi.nii.gz \\
      --segmentation seg.nii.gz --inverters tkd tv kqsm unet --set tkd.threshold=0.2 --out table

One method twice: --inverters a=tkd b=tkd --set b.threshold=0.1
A label table has one 'number name' a line. Names are matched to QSM-CI's regions (caudate nucleus,
Left-Putamen, GM, ..., or a QSM-CI number); any other region is in regions.csv but not scored."""


def main(argv: list[str]) -> int:
    """Read, invert by every method, score, write; 0 even if some (not all) methods failed."""
    args = _parser().parse_args(argv)
    configs = _named(args.inverters)
    args.checkpoints = _checkpoints(args, configs)
    overrides = _overrides(args, configs)
    files = output_names(tuple(configs), bool(args.truth), bool(args.segmentation))
    folder = prepare_output_folder(args.out, files, args.overwrite, [p for _, p in _files(args)])
    inverters = {
        name: compose("inverter", config, overrides[name], args.config_dir)
        for name, config in configs.items()
    }
    inputs = read_inputs(args)
    reference = _reference(args, inputs)
    results = run(reference, inverters)
    methods = {n: _settings(c, overrides[n], args.config_dir) for n, c in configs.items()}
    record = _record(args, reference, methods, results)
    sources = [path for _, path in _files(args)]
    with written_together(folder, "compare", RECORD, record, args.overwrite, sources) as staging:
        save_comparison(staging, results, reference)
    show(results)
    print(f"wrote {folder / 'comparison.png'}, {folder / 'metrics.csv'} and what goes with them")
    return 0


def run(reference: Reference, inverters: Mapping[str, Method]) -> list[Result]:
    """Compare, saying on stderr which method is at work.

    Raises
    ------
    QsmnetError
        If no method succeeded.
    """
    results = compare(
        reference.local, reference.truth, inverters, reference.segmentation, _say_running
    )
    if all(result.error for result in results):
        problem = f"failed, as did every method: {results[0].error}"
        raise QsmnetError(results[0].inverter, problem, "repair the first of them")
    return results


def show(results: Sequence[Result]) -> None:
    """Print the table, why methods failed, and what those that did not warn of."""
    header, rows = shown_rows(results)
    table = Table()
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    # printed by print: rich would end the program on a closed pipe, with a code of its own
    with console.capture() as text:
        console.print(table)
    print(text.get(), end="")
    for result in results:
        for note in (*([f"failed: {result.error}"] if result.error else []), *result.flags):
            print(f"{result.inverter}: {note}")


def software() -> dict[str, str]:
    """Versions that numbers depend on."""
    return {"qsmnet": __version__, "torch": torch.__version__, "numpy": np.__version__}


def _say_running(name: str) -> None:
    print(f"qsmnet: {name} ...", file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog="qsmnet compare",
        description="Run several inversions on one local field and score them against the truth.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add("--local-field", required=True, metavar="FILE", help="local field in ppm")
    add("--mask", required=True, metavar="FILE", help="where susceptibility is sought and scored")
    add("--truth", metavar="FILE", help="susceptibility in ppm; without it: cost, maps and picture")
    add("--segmentation", metavar="FILE", help="labels, QSM-CI's unless --labels says otherwise")
    add("--labels", metavar="TABLE", help="'number name' of the segmentation's labels, TSV or CSV")
    add("--inverters", required=True, nargs="+", metavar="NAME", help="methods, or LABEL=METHOD")
    add("--magnitude", nargs="+", metavar="FILE", help="for methods that weight by it")
    add("--noise", metavar="PPM|FILE", help="standard deviation; estimated when not given")
    add("--field-support", metavar="FILE", help="where, or how well (0 to 1), the field is known")
    add("--b0-dir", nargs=3, type=float, metavar=("X", "Y", "Z"), help="B0 in voxel axes")
    add(
        "--weights",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        dest="checkpoints",
        help="own checkpoint",
    )
    add(
        "--kernel",
        choices=typing.get_args(Kernel),
        help="dipole kernel of every method that has one: prism for what qsmnet simulate makes",
    )
    add("--set", nargs="+", default=[], action="extend", metavar="NAME.KEY=VALUE", help="parameter")
    add("--config-dir", metavar="DIR", help="folder with inverter/NAME.yaml of your own")
    add("--out", required=True, metavar="DIR", help="folder for table, picture and maps")
    add("--overwrite", action="store_true", help="replace what DIR holds")
    # what `read_inputs` also takes for a whole reconstruction
    others = ("phase", "total_field", "echo_times", "b0", "phase_range", "phase_sign", "weights")
    stages = ("background", "set_background", "max_radius", "set_mask")
    scan = ("choices", "r2star", "offset", "set_offset", "unwrap", "set_unwrap", "fit", "set_fit")
    parser.set_defaults(**dict.fromkeys((*others, *stages, *scan)))
    return parser


def _named(inverters: Sequence[str]) -> dict[str, str]:
    """Row label -> config, from ``NAME`` or ``LABEL=NAME``."""
    configs: dict[str, str] = {}
    for item in inverters:
        label, _, config = item.partition("=")
        if label in configs:
            fix = f"give each row a name: first={label} second={label}"
            raise UsageError("--inverters", f"{label!r} is there twice", fix)
        if not re.fullmatch(r"[\w.+-]+", label):
            raise UsageError("--inverters", f"{label!r} is no name", "use letters and digits")
        configs[label] = config or label
    return configs


def _overrides(args: argparse.Namespace, configs: Mapping[str, str]) -> dict[str, list[str]]:
    overrides = {name: _kernel(args, config) for name, config in configs.items()}
    for item in args.set:
        # labels may hold dots: the longest one that fits
        fitting = [name for name in configs if item.startswith(f"{name}.")]
        if not fitting:
            names = ", ".join(configs)
            raise UsageError("--set", f"{item!r} names no inverter", f"NAME.KEY=VALUE with {names}")
        name = max(fitting, key=len)
        overrides[name].append(item.removeprefix(f"{name}."))
    for name, file in args.checkpoints.items():
        overrides[name].append(f"weights={file}")
    for name, config in configs.items():
        # what is wrong with them stops the run before anything is computed
        checked_weights(config, overrides[name], args.config_dir)
    return overrides


def _kernel(args: argparse.Namespace, config: str) -> list[str]:
    """``--kernel`` as an override where the method has it; ``--set`` comes after and wins."""
    wanted = args.kernel is not None and "kernel" in _settings(config, (), args.config_dir)
    return [f"kernel={args.kernel}"] if wanted else []


def _checkpoints(args: argparse.Namespace, configs: Mapping[str, str]) -> dict[str, Path]:
    """Row label -> the user's checkpoint; without a label it is for the only learned inverter."""
    learned = [n for n, c in configs.items() if "weights" in _settings(c, (), args.config_dir)]
    found: dict[str, Path] = {}
    for item in args.checkpoints:
        name, equals, file = item.partition("=")
        if equals and name in configs:
            found[name] = Path(file).absolute()
        elif len(learned) == 1:
            found[learned[0]] = Path(item).absolute()
        else:
            problem = f"{item} could be for {' or '.join(learned) or 'no method'}"
            raise UsageError("--weights", problem, "write NAME=FILE")
    return found


def _settings(
    config: str, overrides: Sequence[str], config_dir: str | Path | None
) -> dict[str, object]:
    return settings("inverter", config, overrides, config_dir)


def _files(args: argparse.Namespace) -> list[tuple[str, Path]]:
    own = [("truth", args.truth), ("segmentation", args.segmentation), ("labels", args.labels)]
    own += [(f"weights of {name}", file) for name, file in args.checkpoints.items()]
    return [*input_files(args), *((role, Path(file)) for role, file in own if file)]


def _reference(args: argparse.Namespace, inputs: Inputs) -> Reference:
    """Read truth and segmentation, estimate the noise where it is not given."""
    local = inputs.data
    assert isinstance(local, LocalField)  # noqa: S101 - the parser requires --local-field
    if args.labels and not args.segmentation:
        raise UsageError("--labels", "has no segmentation to name", "add --segmentation")
    if local.noise is None:
        local = replace(local, noise=estimate_noise(local.field, local.mask))
    truth = None
    if args.truth:
        volume = _on_grid(args.truth, inputs.reference)
        truth = finite_in_mask(volume.tensor(), local.mask, volume.path)
    labels, names = _segmentation(args, inputs.reference)
    affine, code = inputs.reference.affine, inputs.reference.space_code
    return Reference(local, affine, truth, labels, names, code)


def _segmentation(
    args: argparse.Namespace, grid: Volume
) -> tuple[torch.Tensor | None, Mapping[int, str]]:
    if not args.segmentation:
        return None, QSM_CI_NAMES
    volume = _on_grid(args.segmentation, grid)
    numbers = np.rint(volume.data)
    if not np.isfinite(volume.data).all() or np.abs(volume.data - numbers).max() > 1e-3:
        problem = "holds values that are not whole numbers"
        raise InconsistentError(args.segmentation, problem, "give a label map")
    if np.abs(numbers).max() >= _MOST_LABEL:
        problem = f"holds labels of {_MOST_LABEL} and more, which cannot be told apart"
        raise InconsistentError(args.segmentation, problem, "renumber them")
    labels, names = numbers.astype(np.int32), QSM_CI_NAMES
    if args.labels:
        labels, names = to_qsm_ci(labels, read_label_table(args.labels), args.segmentation)
    return torch.from_numpy(labels), names


def _on_grid(path: str, grid: Volume) -> Volume:
    volume = read_volume(path)
    check_same_grid(grid, volume)
    return volume


def _record(
    args: argparse.Namespace,
    reference: Reference,
    methods: Mapping[str, Mapping[str, object]],
    results: Sequence[Result],
) -> dict[str, object]:
    geometry = reference.local.geometry
    return {
        "units": "ppm",
        "reference": "mean over the mask, of every map and of the truth",
        "noise": {
            "root_mean_square_ppm": reference.local.noise_level(),
            "source": "given" if args.noise else "estimated from the field",
        },
        "geometry": {"voxel_size_mm": geometry.voxel_size, "b0_dir_voxel_axes": geometry.b0_dir},
        "threads": torch.get_num_threads(),
        "device": str(reference.local.field.device),
        "peak_memory": "increase of the process's resident memory, sampled every 5 ms",
        "methods": dict(methods),
        "failed": {r.inverter: r.error for r in results if r.error},
        "flags": {r.inverter: list(r.flags) for r in results if r.flags},
        "inputs": [
            {"role": role, "file": path.name, "sha256": sha256(path)} for role, path in _files(args)
        ],
        "software": software(),
    }
