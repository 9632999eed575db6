"""``qsmnet demo``: a small simulated head, inverted in four ways, in about a minute."""

import time
from pathlib import Path

import numpy as np
import torch

from qsmnet import __version__
from qsmnet.cli import Parser
from qsmnet.cli.compare import run, show, software
from qsmnet.cli.compose import compose
from qsmnet.errors import UsageError
from qsmnet.evaluate.save import RECORD, Reference, output_names, save_comparison
from qsmnet.evaluate.study import Condition
from qsmnet.io.files import prepare_output_folder
from qsmnet.io.nifti import write_volume
from qsmnet.io.together import written_together
from qsmnet.simulate.scene import Scene

#: Classical methods, then the released networks.
INVERTERS = ("tkd", "tv", "kqsm", "unet")
_INPUTS = ("local_field.nii.gz", "mask.nii.gz", "truth.nii.gz", "segmentation.nii.gz")
_NOISE = 0.002
_SMALLEST = 32
# a whole, lesion-free brain that fills the grid; chosen by its anatomy, not by any score
_SEED = 101
# networks never see this split
_SPLIT = "demo"


def main(argv: list[str]) -> int:
    """Simulate, invert, score, draw."""
    args = _parser().parse_args(argv)
    if args.size < _SMALLEST:
        raise UsageError("--size", f"{args.size} is too small", f"use at least {_SMALLEST}")
    start = time.perf_counter()
    names = (*output_names(INVERTERS, with_truth=True, with_segmentation=True), *_INPUTS)
    folder = prepare_output_folder(args.out, names, args.overwrite)
    print(f"qsmnet {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    size = args.size
    condition = Condition("demo", _NOISE, (size, size, size))
    scene = condition.scene(args.seed, _SPLIT, 0)
    print(f"head   {size}^3 voxels of 1 mm, seed {args.seed}, noise {_NOISE} ppm, B0 axial")
    reference = _reference(scene)
    results = run(reference, {name: compose("inverter", name) for name in INVERTERS})
    record = {"units": "ppm", "scene": scene.record, "software": software()}
    with written_together(folder, "demo", RECORD, record, args.overwrite) as staging:
        _save_inputs(staging, scene, reference)
        save_comparison(staging, results, reference)
    show(results)
    print(f"inputs {folder}: {', '.join(_INPUTS)}")
    print(f"look   {folder / 'comparison.png'} and {folder / 'spectrum.png'}")
    print(f"table  {folder / 'metrics.md'}, in {time.perf_counter() - start:.0f} s")
    print(f"again  {_command(folder)}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="qsmnet demo",
        description="Simulate a small head, invert it in four ways, draw and score them.",
        epilog="example: qsmnet demo --out demo",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("--size", type=int, default=96, metavar="N", help="grid edge, in voxels")
    parser.add_argument("--seed", type=int, default=_SEED, help="which head")
    parser.add_argument("--overwrite", action="store_true", help="replace what DIR holds")
    return parser


def _reference(scene: Scene) -> Reference:
    affine = np.diag([*scene.geometry.voxel_size, 1.0])
    return Reference(scene.as_local_field(), affine, scene.chi, scene.segmentation)


def _save_inputs(folder: Path, scene: Scene, reference: Reference) -> None:
    volumes = (scene.local_field, scene.mask, scene.chi, scene.segmentation)
    for name, volume in zip(_INPUTS, volumes, strict=True):
        write_volume(folder / name, volume, reference.affine)


def _command(folder: Path) -> str:
    field, mask, truth, labels = (folder / name for name in _INPUTS)
    return (
        f"qsmnet compare --local-field {field} --mask {mask} --truth {truth}"
        f" --segmentation {labels} --noise {_NOISE} --inverters {' '.join(INVERTERS)}"
        f" --out {folder.name}-again"
    )
