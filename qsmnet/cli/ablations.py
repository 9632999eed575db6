"""The command line of a study of ablations: trains each variant as a user would, then scores it."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from qsmnet.cli.compose import compose
from qsmnet.cli.train import can_resume
from qsmnet.errors import QsmnetError, UsageError
from qsmnet.evaluate.ablations import Ablation, summarise_ablation
from qsmnet.evaluate.case_study import Phantoms
from qsmnet.evaluate.ledger import check_known
from qsmnet.simulate.anatomy import Anatomy
from qsmnet.simulate.simulator import Simulator
from qsmnet.training.anatomy import anatomy_simulator
from qsmnet.weights.store import load_weights


def run(folder: Path, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the study of ``folder``'s config.yaml; what is there is not done again.

    Raises
    ------
    SystemExit
        With one line, if a name or the folder with label maps is wrong, or a run fails.
    """
    args = _parser(folder, description).parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        study = _study(config, args)
        check_known({"--variants": (args.variants, study.variants)})
        reference = compose("inverter", config["reference"])
        for variant in () if args.summary_only else args.variants or study.variants:
            if study.missing(variant):
                study.score(variant, *_trained(study, variant, args), reference)
        summarise_ablation(study)
    except QsmnetError as error:
        raise SystemExit(f"error: {error}") from error


def _study(config: Mapping[str, Any], args: argparse.Namespace) -> Ablation:
    def make(items: Phantoms) -> Simulator:
        made: Simulator = compose("simulator", items.simulator, items.overrides)
        if not any(isinstance(source, Anatomy) for source in made.sources.values()):
            return made
        return anatomy_simulator(made, args.labels, config["maps"])

    items = {name: Phantoms(**each) for name, each in config["items"].items()}
    small = {name: replace(each, count=1) for name, each in items.items()}
    common = [*config["common"], f"data.labels={args.labels}", f"data.bank={args.runs / 'bank'}"]
    common.append(f"stages.scenes_folder={args.runs / 'scenes'}")
    common += config["smoke"] if args.smoke else []
    chosen = small if args.smoke else items
    return Ablation(config["variants"], common, chosen, make, config["seed"], args.out)


def _trained(
    study: Ablation, variant: str, args: argparse.Namespace
) -> tuple[Path, dict[str, object]]:
    """Weights of a variant's run, and what it took; a run that was stopped goes on."""
    folder = args.runs / variant.replace(" ", "_")
    weights = folder / "weights.safetensors"
    if not weights.exists():
        resume = can_resume(folder)
        if not resume:
            # at most the settings of a run that was killed at once
            shutil.rmtree(folder, ignore_errors=True)
        settings = [f"resume={folder}"] if resume else [*study.settings(variant), f"out={folder}"]
        print(f"{variant}: qsmnet train {' '.join(settings)}", flush=True)
        command = [sys.executable, "-m", "qsmnet.cli", "train", *settings]
        if subprocess.run(command, check=False).returncode:  # noqa: S603
            raise UsageError(variant, "its run failed", "see the line above")
    _, card = load_weights(str(weights))
    own = " ".join(study.variants[variant])
    return weights, {"steps": card["steps"], "train_hours": card["hours"], "settings": own}


def _parser(folder: Path, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--labels", type=Path, required=True, help="folder with label maps")
    add("--runs", type=Path, required=True, help="folder for the runs")
    add("--out", type=Path, default=folder, help="folder; rows in it are not made again")
    add("--variants", nargs="+", help="some variants")
    add("--threads", type=int, default=1)
    add("--summary-only", action="store_true", help="only the table")
    add("--smoke", action="store_true", help="two steps, one item: does it run")
    return parser
