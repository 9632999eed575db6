"""Do the first steps of a released network's training come out again?

    python scripts/repeat_training.py unrolled --labels MAPS --out RUN

Starts the training that the card of a released network names, of two runs the first, ends it after
the steps whose losses the card holds, and compares. Losses of ``log_offset`` are logarithms: a
difference of 0.01 is 1 %.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from qsmnet.training.log import read_metrics
from qsmnet.weights.store import Card, load_weights

_LARGEST = 0.01


def main() -> None:
    """Train, compare, exit with 1 where the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="released weights")
    parser.add_argument("--labels", default="MAPS", help="folder with label maps")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--bank", help="folder of a bank that is there already")
    arguments = parser.parse_args()
    _, card = load_weights(arguments.name)
    card = card.get("earlier", card)
    kept = {int(step): loss for step, loss in card["first_losses"].items()}
    command = short_command(card, arguments.labels, arguments.out, max(kept) + 1)
    command += [f"data.bank={arguments.bank}"] if arguments.bank else []
    log = arguments.out / ("stage_1" if "stages" in card else "") / "metrics.csv"
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)
    again = {step: value for step, name, value in read_metrics(log) if name == "train/loss"}
    differences = {step: abs(again[step] - loss) for step, loss in kept.items()}
    for step, difference in differences.items():
        print(f"step {step + 1}: {kept[step]:.4f} {again[step]:.4f} {difference:.2e}")
    largest = max(differences.values())
    print(f"largest difference {largest:.2e}, at most {_LARGEST} wanted")
    sys.exit(largest > _LARGEST)


def short_command(card: Card, labels: str, out: Path, steps: int) -> list[str]:
    """Command of a card, with the schedule of the whole run, for so many steps."""
    words = shlex.split(card["command"].replace("MAPS", shlex.quote(labels)))
    kept = [word for word in words if not word.startswith("out=")]
    length = card["recipe"]["schedule_steps"]
    changed = [f"trainer.max_steps={steps}", f"schedule_steps={length}", f"epoch={steps}"]
    # of a training in stages the first is enough
    changed += ["network.iterations=1", "stages.fitted_scenes=0"] if "stages" in card else []
    return [*kept, f"out={out}", *changed]


if __name__ == "__main__":
    main()
