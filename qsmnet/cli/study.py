"""What the command lines of studies share: options, and the way from a config to tables."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from qsmnet.cli.study_tools import tools
from qsmnet.errors import QsmnetError
from qsmnet.evaluate.case_study import CaseStudy
from qsmnet.evaluate.stage_study import StageStudy

Say = Callable[[str], None]
_S = TypeVar("_S", CaseStudy, StageStudy)


def study_parser(folder: Path, description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """Options of the study of ``folder``'s config.yaml; ``names`` are those that choose rows."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--labels", type=Path, help="folder with label maps; procedural heads without it")
    add("--cache", type=Path, help="folder in which rendered heads are kept")
    add("--out", type=Path, default=folder, help="folder; rows in it are not done again")
    add("--split", default="choose", choices=("choose", "test"), help="test: once, at the end")
    for name in names:
        add(f"--{name}", nargs="+", type=int if name == "heads" else str, help=f"some {name}")
    add("--no-grids", dest="grids", action="store_false", help="defaults and variants alone")
    add("--threads", type=int, default=1)
    add("--summary-only", action="store_true", help="only tables and figures")
    add("--smoke", action="store_true", help="tiny heads and volumes: does it run")
    parser.set_defaults(folder=folder, names=("split", *names, "grids"))
    return parser


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """Rows that are wanted, as the settings of a study's ``Wanted``."""
    return {name: getattr(args, name) for name in args.names}


def run_study(
    args: argparse.Namespace,
    from_config: Callable[..., _S],
    run: Callable[[_S, Say], None],
    summarise: Callable[[_S, str], None],
) -> None:
    """Make the rows of a study and its summary, as the options of `study_parser` say.

    Raises
    ------
    SystemExit
        With one line, if a name, a setting or the folder with label maps is wrong.
    """
    try:
        torch.set_num_threads(args.threads)
        config = yaml.safe_load((args.folder / "config.yaml").read_text(encoding="utf-8"))
        study = from_config(config, tools(), args.out, args.labels, args.cache)
        study = study.smoke() if args.smoke else study
        if not args.summary_only:
            run(study, lambda line: print(line, flush=True))
        summarise(study, args.split)
    except QsmnetError as error:
        raise SystemExit(f"error: {error}") from error
