"""The command line of a study of cases, with this package's configs."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate

from qsmnet.cli.compose import available, compose, defined_in_qsmnet
from qsmnet.cli.preset import STAGES, Preset
from qsmnet.errors import QsmnetError, UsageError
from qsmnet.evaluate.case_figures import draw_cases
from qsmnet.evaluate.case_inputs import Tools
from qsmnet.evaluate.case_run import Wanted, run_cases
from qsmnet.evaluate.case_study import CaseStudy
from qsmnet.evaluate.case_summary import summarise_cases
from qsmnet.pipeline import Pipeline
from qsmnet.volumes import LocalField, Scan


def run(folder: Path, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the study of ``folder``'s config.yaml; rows that are there are not made again.

    Raises
    ------
    SystemExit
        With one line, if a name, a setting or the folder with label maps is wrong.
    """
    args = _parser(folder, description).parse_args(argv)
    try:
        _run(folder, args)
    except QsmnetError as error:
        raise SystemExit(f"error: {error}") from error


def _run(folder: Path, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    study = CaseStudy.from_config(config, tools(), args.out, args.labels, args.cache)
    study = replace(study, device=args.device)
    study = study.smoke() if args.smoke else study
    names = ("split", "heads", "protocols", "tables", "methods", "grids")
    wanted = Wanted(**{name: getattr(args, name) for name in names})
    if not args.summary_only:
        run_cases(study, wanted, lambda line: print(line, flush=True))
    summarise_cases(study, args.split)
    draw_cases(study, args.split)


def tools() -> Tools:
    """Methods of the package's configs."""
    return Tools(available, compose, make, front)


def make(settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 the type is the target's business
    """Build what a mapping with ``_target_`` describes; None if this package has no such thing.

    Raises
    ------
    UsageError
        If the target is not of this package, or a setting is wrong.
    """
    target = str(settings["_target_"])
    if not defined_in_qsmnet(target):
        raise UsageError(target, "is outside of qsmnet", "name a class of it")
    try:
        get_object(target)
    except (ImportError, ValueError):
        return None
    try:
        return instantiate(dict(settings), _convert_="all")
    except (HydraException, TypeError, ValueError) as error:
        raise UsageError(target, " ".join(str(error).split()), "change its settings") from error


def front(preset: str) -> Callable[[Scan], LocalField]:
    """From a scan to a local field by a preset's stages.

    Raises
    ------
    UsageError
        When called, if the preset has two masks, whose fields are two.
    """
    chosen: Preset = compose("preset", preset)
    # the cheapest there is: its map is not used
    choices = {stage: chosen.choice(stage) for stage in STAGES if stage != "inverter"}
    stages: dict[str, Any] = {s: compose(s, c.name, c.overrides) for s, c in choices.items()}
    pipeline = Pipeline(inverter=compose("inverter", "tkd"), **stages)

    def local_field(scan: Scan) -> LocalField:
        mask = pipeline.object_mask(scan)
        if not isinstance(mask, torch.Tensor):
            fix = "choose a preset with one mask"
            raise UsageError(f"preset {preset!r}", "makes two passes, with two fields", fix)
        found = pipeline.reconstruct(scan, mask).local_field
        if found is None:
            raise UsageError(f"preset {preset!r}", "makes no local field", "choose another")
        return found

    return local_field


def _parser(folder: Path, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--labels", type=Path, help="folder with label maps; procedural heads without it")
    add("--cache", type=Path, help="folder in which rendered heads are kept")
    add("--out", type=Path, default=folder, help="folder; rows in it are not done again")
    add("--split", default="choose", choices=("choose", "test"), help="test: once, at the end")
    for name in ("heads", "protocols", "tables", "methods"):
        add(f"--{name}", nargs="+", type=int if name == "heads" else str, help=f"some {name}")
    add("--no-grids", dest="grids", action="store_false", help="defaults alone")
    add("--threads", type=int, default=1)
    add("--device", default="cpu", help="where methods run")
    add("--summary-only", action="store_true", help="only tables and figures")
    add("--smoke", action="store_true", help="tiny heads and volumes: does it run")
    return parser
