"""Every stage of the classical pipeline on simulated heads: see README.md."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from qsmnet.cli.compose import available, compose
from qsmnet.evaluate.stage_run import run_stages
from qsmnet.evaluate.stage_study import TRUTH, StageStudy, Toolbox, Wanted, named
from qsmnet.evaluate.stage_summary import summarise_stages
from qsmnet.pipeline import Pipeline
from qsmnet.volumes import Susceptibility

HERE = Path(__file__).parent


def pipeline(stages: Mapping[str, Any]) -> Callable[..., Susceptibility]:
    """Scan to chi, from stages by config group: a name, or a list of it and overrides."""
    stages = {**stages, "mask": "whole"} if stages["mask"] == TRUTH else stages
    made = Pipeline(**{group: compose(group, *named(stage)) for group, stage in stages.items()})
    return lambda scan, mask: made.reconstruct(scan, mask).susceptibility


def main() -> None:
    args = _parser().parse_args()
    torch.set_num_threads(args.threads)
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    toolbox = Toolbox(available, compose, pipeline)
    study = StageStudy.from_config(config, toolbox, args.out, args.labels, args.cache)
    study = study.smoke() if args.smoke else study
    wanted = Wanted(args.split, args.heads, args.conditions, args.tables, args.methods, args.grids)
    if not args.summary_only:
        run_stages(study, wanted, lambda line: print(line, flush=True))
    summarise_stages(study, args.split)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--labels", type=Path, help="folder with label maps; procedural heads without it")
    add("--cache", type=Path, help="folder in which rendered heads are kept")
    add("--out", type=Path, default=HERE, help="folder; rows in it are not done again")
    add("--split", default="choose", choices=("choose", "test"), help="test: once, at the end")
    for name in ("heads", "conditions", "tables", "methods"):
        add(f"--{name}", nargs="+", type=int if name == "heads" else str, help=f"some {name}")
    add("--no-grids", dest="grids", action="store_false", help="defaults and variants alone")
    add("--threads", type=int, default=1)
    add("--summary-only", action="store_true", help="only tables and choices")
    add("--smoke", action="store_true", help="tiny heads: does it run")
    return parser


if __name__ == "__main__":
    main()
