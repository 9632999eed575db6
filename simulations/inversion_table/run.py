"""Classical and learned inversion on brains that none has seen: see README.md."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from qsmnet.cli.compose import compose, settings
from qsmnet.evaluate.study import Study, run_study
from qsmnet.evaluate.study_summary import summarise
from qsmnet.inversion.inverter import Inverter

HERE = Path(__file__).parent


def main() -> None:
    args = _parser().parse_args()
    torch.set_num_threads(args.threads)

    def build(name: str, parameters: Mapping[str, object], kernel: str) -> Inverter:
        given = {**parameters, "kernel": kernel, "device": args.device}
        known = settings("inverter", name)  # kernel and device only where it has them
        overrides = [f"{key}={value}" for key, value in given.items() if key in known]
        inverter: Inverter = compose("inverter", name, overrides)
        return inverter

    config = yaml.safe_load((HERE / "config.yaml").read_text())
    config = {**config, **({"brains": args.brains} if args.brains else {})}
    study = replace(Study.from_config(config, args.out, build), device=args.device)
    study = study.smoke() if args.smoke else study
    if not args.summary_only:
        run_study(study, args.conditions, args.methods, lambda line: print(line, flush=True))
    summarise(study)
    print(args.out / "table.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        default=HERE,
        help="folder; rows in it are not done again",
    )
    add("--brains", type=int, help="the first so many of the test brains")
    add("--conditions", nargs="+", help="some of config.yaml's")
    add("--methods", nargs="+", help="some of config.yaml's")
    add("--threads", type=int, default=2)
    add("--device", default="cpu")
    add("--summary-only", action="store_true", help="only table.md and spectrum.png")
    add("--smoke", action="store_true", help="one brain of 32^3 voxels, two conditions")
    return parser


if __name__ == "__main__":
    main()
