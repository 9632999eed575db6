"""Do the first steps of a released network's training come out again?

    python scripts/repeat_training.py unrolled --labels MAPS --out RUN [--run N --init WEIGHTS]

Starts the training that the card of a released network names, of several runs the first unless
``--run`` says which; later ones begin with what ``--init`` gives, the weights of those before. Ends
it after the steps whose losses the card holds, and compares. Losses of ``log_offset`` are
logarithms: a difference of 0.01 is 1 %. Experiments change: where a setting of the card is another
one in this source tree, it says so and which commit to check out. Trainings before commit c9f26f3
also took signal voids for unknown, which no setting tells.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from qsmnet.training.log import read_metrics
from qsmnet.weights.store import Card, load_weights

_LARGEST = 0.01
# of a recipe: what a shorter run has its own of, or another machine
_OWN = ("trainer", "schedule_steps")
_SHORTENED = ("network.iterations", "stages.fitted_scenes", "data.workers", "data.build_workers")


def main() -> None:
    """Train, compare, exit with 1 where the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="released weights")
    parser.add_argument("--labels", default="MAPS", help="folder with label maps")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--run", type=int, default=1, help="of several, which; from 1")
    parser.add_argument("--init", type=Path, help="weights that a later run began with")
    parser.add_argument("--bank", help="folder of a bank that is there already")
    arguments = parser.parse_args()
    _, card = load_weights(arguments.name)
    trainings = runs(card)
    if not 1 <= arguments.run <= len(trainings):
        raise SystemExit(f"--run goes from 1 to {len(trainings)}")
    card = trainings[arguments.run - 1]
    began = load_weights(arguments.init)[1]["sha256"] if arguments.init else None
    if began != card.get("init", {}).get("sha256"):
        raise SystemExit(f"--init: run {arguments.run} began with {card.get('init')}")
    kept = {int(step): loss for step, loss in card["first_losses"].items()}
    command = short_command(card, arguments.labels, arguments.out, max(kept) + 1, arguments.init)
    command += [f"data.bank={arguments.bank}"] if arguments.bank else []
    log = arguments.out / ("stage_1" if "stages" in card else "") / "metrics.csv"
    print(shlex.join(command), flush=True)
    asked = [*command, "--cfg", "job", "--resolve"]
    composed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    changed = list(changed_settings(card, yaml.safe_load(composed)))
    if changed:
        raise SystemExit(f"not as in the card: {', '.join(changed)}; check out {card['commit']}")
    subprocess.run(command, check=True)
    again = {step: value for step, name, value in read_metrics(log) if name == "train/loss"}
    differences = {step: abs(again[step] - loss) for step, loss in kept.items()}
    for step, difference in differences.items():
        print(f"step {step + 1}: {kept[step]:.4f} {again[step]:.4f} {difference:.2e}")
    largest = max(differences.values())
    print(f"largest difference {largest:.2e}, at most {_LARGEST} wanted")
    sys.exit(largest > _LARGEST)


def runs(card: Card) -> list[Card]:
    """Return the trainings of a card, the first one first, each with the network that it had."""
    network = {**card["network"], **_unnested(card.get("trained_with", {}))}
    earlier = card.get("earlier")
    before = runs({"network": network, **earlier}) if earlier else []
    return [*before, {**card, "network": network}]


def short_command(
    card: Card, labels: str, out: Path, steps: int, init: Path | None = None
) -> list[str]:
    """Command of a card, with the schedule of the whole run, for so many steps."""
    words = shlex.split(card["command"].replace("MAPS", shlex.quote(labels)))
    own = ("out=", "init=") if init else ("out=",)
    kept = [word for word in words if not word.startswith(own)]
    kept += [f"init={init}"] if init else []
    length = card["recipe"]["schedule_steps"]
    changed = [f"trainer.max_steps={steps}", f"schedule_steps={length}", f"epoch={steps}"]
    # of a training in stages the first is enough
    first = ["network.iterations=1"] if "iterations" in card["network"] else []
    changed += [*first, "stages.fitted_scenes=0"] if "stages" in card else []
    return [*kept, f"out={out}", *changed]


def changed_settings(card: Card, composed: Mapping[str, Any]) -> Iterator[str]:
    """Names of settings of the card that are others in a composed config."""
    # crops know nothing of what is done to the whole map at the end
    ignored = (*_SHORTENED, "network.shrinkage") if "stages" in card else _SHORTENED
    recipe = {k: v for k, v in card["recipe"].items() if k not in _OWN}
    network = {**card["network"], **_unnested(card.get("trained_with", {}))}
    # what is made of the simulator stands there again
    recipe["data"] = {k: v for k, v in recipe["data"].items() if k != "training"}
    for name, value in _leaves({**recipe, "network": network}):
        if name not in ignored and dict(_leaves(composed)).get(name) != value:
            yield name


def _leaves(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _unnested(trained_with: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("network."): value for name, value in trained_with.items()}


if __name__ == "__main__":
    main()
