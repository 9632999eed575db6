"""Put a run's weights into the package.

    python scripts/release_weights.py NAME RUN COMMAND [--earlier RUN [COMMAND]] [--mean]
        [--use SETTING=VALUE ...]

Writes the weights of ``RUN/weights.safetensors`` and its card, with the command that trained them
and the losses of its first steps (`repeat_training.py` makes them again), to
``qsmnet/weights/NAME.*``, and the SHA-256 into ``manifest.json``. Loads the result back before it
says so. ``--earlier`` are the weights that the run began with: of a run, or released (no COMMAND,
it has one), which may be those that are replaced. ``--mean`` releases the mean of these and the
run's, which can be better than either (Wortsman et al. 2022, arXiv:2109.01903).
``--use SETTING=VALUE`` gives the network a setting that it did not have in training, such as more
padding. Weights of over 15 MB are stored in half precision, and are to be scored as they are.
"""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from qsmnet.training.log import read_metrics
from qsmnet.weights.store import Card, build_network, load_weights, released_names, save_weights

_WEIGHTS = Path(__file__).parents[1] / "qsmnet" / "weights"
_LARGEST_BYTES = 15_000_000
_FIRST_STEPS = 200
# of the card of earlier weights
_KEPT = (
    *("recipe", "commit", "hardware", "steps", "hours", "stages", "validation", "sha256", "init"),
    *("command", "first_losses", "earlier", "mean_of", "trained_with"),
)


def main() -> None:
    """Write weights, card and manifest."""
    arguments = _arguments()
    name, run = arguments.name, Path(arguments.run)
    source = run / "weights.safetensors"
    network, card = load_weights(source)
    card |= {"command": arguments.command, "first_losses": _first_losses(run)}
    state = network.state_dict()
    if arguments.earlier:
        card["earlier"] = _earlier(card, type(network), *arguments.earlier)
    if arguments.mean:
        state = _mean(state, arguments.earlier[0])
        card["mean_of"] = [card["earlier"]["sha256"], card["sha256"]]
    _use(card, type(network), arguments.use)
    if source.stat().st_size > _LARGEST_BYTES:
        state = {k: v.half() for k, v in state.items()}
        card["stored"] = str(torch.half).removeprefix("torch.")
    path = _WEIGHTS / f"{name}.safetensors"
    size = sum(v.numel() * v.element_size() for v in state.values())
    if size > _LARGEST_BYTES:
        raise SystemExit(f"{source} has {size} bytes, over {_LARGEST_BYTES}")
    build_network(card["network"], name)
    written = save_weights(path, state, card, overwrite=True)
    manifest_path = _WEIGHTS / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    manifest[name] = written["sha256"]
    manifest_path.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")
    load_weights(name)
    print(f"released {name}: {size} bytes; now {released_names()}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("name", "run", "command"):
        parser.add_argument(name)
    parser.add_argument("--earlier", nargs="+", metavar=("RUN", "COMMAND"))
    parser.add_argument("--mean", action="store_true", help="of the run's and the earlier weights")
    parser.add_argument("--use", nargs="+", default=[], metavar="SETTING=VALUE")
    arguments = parser.parse_args()
    if arguments.earlier and len(arguments.earlier) != 2 - (
        arguments.earlier[0] in released_names()
    ):
        parser.error("--earlier is a run and its command, or a released name")
    if arguments.mean and not arguments.earlier:
        parser.error("--mean is of two weights: name the others by --earlier")
    return arguments


def _use(card: Card, network: type, settings: list[str]) -> None:
    """Give the network of a card settings that training did not have."""
    known = _defaults(network)
    for setting, _, value in (word.partition("=") for word in settings):
        if setting not in known:
            raise SystemExit(f"--use: the network has no setting {setting!r}")
        trained_with = card.setdefault("trained_with", {})
        # cards know nothing of settings that are younger
        before = card["network"].get(setting, known[setting])
        trained_with[f"network.{setting}"] = before
        card["network"][setting] = yaml.safe_load(value)


def _defaults(network: type) -> dict[str, Any]:
    return {name: each.default for name, each in inspect.signature(network).parameters.items()}


def _weights(run: str) -> str:
    """What to load: a released name, or a run's."""
    return run if run in released_names() else str(Path(run) / "weights.safetensors")


def _earlier(card: Card, network: type, run: str, command: str = "") -> Card:
    """Return of the weights before what tells how to make them again."""
    _, first = load_weights(_weights(run))
    # the network of a card is that of its last run
    had = {**_defaults(network), **first["network"]}
    others = {
        f"network.{k}": had[k] for k, v in card["network"].items() if k in had and had[k] != v
    }
    if others:
        first["trained_with"] = {**others, **first.get("trained_with", {})}
    if first["sha256"] != card["init"]["sha256"]:
        raise SystemExit(f"{run} is not what the run began with")
    # names of the machine it was trained on are no part of the recipe
    card["init"] = {"weights": "earlier", "sha256": first["sha256"]}
    if command:
        first |= {"command": command, "first_losses": _first_losses(Path(run))}
    if "init" in first:
        first["init"]["weights"] = Path(first["init"]["weights"]).name
    return {name: first[name] for name in _KEPT if name in first}


def _mean(state: dict[str, Tensor], earlier: str) -> dict[str, Tensor]:
    network, _ = load_weights(_weights(earlier))
    return {name: (state[name] + value) / 2 for name, value in network.state_dict().items()}


def _first_losses(run: Path) -> dict[int, float]:
    # of a training in stages, the first one's
    logs = (run / "metrics.csv", run / "stage_1" / "metrics.csv")
    rows = read_metrics(next(path for path in logs if path.exists()))
    return {s: value for s, name, value in rows if name == "train/loss" and s < _FIRST_STEPS}


if __name__ == "__main__":
    main()
