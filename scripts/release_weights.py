"""Put a run's weights into the package.

    python scripts/release_weights.py NAME RUN COMMAND [EARLIER_RUN EARLIER_COMMAND]

Writes the weights of ``RUN/weights.safetensors`` and its card, with the command that trained them
and the losses of its first steps (`repeat_training.py` makes them again), to
``qsmnet/weights/NAME.*``, and the SHA-256 into ``manifest.json``. Loads the result back before it
says so. The earlier run is that whose weights the run began with. Weights of over 15 MB are stored
in half precision, and are to be scored as they are stored.
"""

import json
import sys
from pathlib import Path

import torch

from qsmnet.training.log import read_metrics
from qsmnet.weights.store import Card, load_weights, released_names, save_weights

_WEIGHTS = Path(__file__).parents[1] / "qsmnet" / "weights"
_LARGEST_BYTES = 15_000_000
_FIRST_STEPS = 200


def main(name: str, run: str, command: str, *earlier: str) -> None:
    """Write weights, card and manifest."""
    source = Path(run) / "weights.safetensors"
    network, card = load_weights(source)
    card |= {"command": command, "first_losses": _first_losses(Path(run))}
    if earlier:
        card["earlier"] = _earlier(card, *earlier)
    state = network.state_dict()
    if source.stat().st_size > _LARGEST_BYTES:
        state = {k: v.half() for k, v in state.items()}
        card["stored"] = str(torch.half).removeprefix("torch.")
    path = _WEIGHTS / f"{name}.safetensors"
    written = save_weights(path, state, card, overwrite=True)
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise SystemExit(f"{path} has {size} bytes, over {_LARGEST_BYTES}")
    manifest_path = _WEIGHTS / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    manifest[name] = written["sha256"]
    manifest_path.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")
    load_weights(name)
    print(f"released {name}: {size} bytes; now {released_names()}")


def _earlier(card: Card, run: str, command: str) -> Card:
    """Return of the run before what tells how to do it again."""
    _, first = load_weights(Path(run) / "weights.safetensors")
    if first["sha256"] != card["init"]["sha256"]:
        raise SystemExit(f"{run} is not what the run began with")
    # names of the machine it was trained on are no part of the recipe
    card["init"] = {"weights": "earlier", "sha256": first["sha256"]}
    kept = ("recipe", "commit", "hardware", "steps", "hours", "stages", "validation", "sha256")
    losses = _first_losses(Path(run))
    return {**{k: first[k] for k in kept}, "command": command, "first_losses": losses}


def _first_losses(run: Path) -> dict[int, float]:
    # of a training in stages, the first one's
    logs = (run / "metrics.csv", run / "stage_1" / "metrics.csv")
    rows = read_metrics(next(path for path in logs if path.exists()))
    return {s: value for s, name, value in rows if name == "train/loss" and s < _FIRST_STEPS}


if __name__ == "__main__":
    main(*sys.argv[1:])
