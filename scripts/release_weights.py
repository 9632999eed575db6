"""Put a run's weights into the package: ``python scripts/release_weights.py NAME RUN COMMAND``.

Copies ``weights.safetensors`` and its card, with the command that trained it, to
``qsmnet/weights/NAME.*``, and writes the SHA-256 into ``manifest.json``. Loads the result back
before it says so.
"""

import hashlib
import json
import sys
from pathlib import Path

from qsmnet.weights.store import load_weights, released_names

_WEIGHTS = Path(__file__).parents[1] / "qsmnet" / "weights"
_LARGEST_BYTES = 15_000_000


def main(name: str, run: str, command: str) -> None:
    source = Path(run) / "weights.safetensors"
    load_weights(source)
    content = source.read_bytes()
    if len(content) > _LARGEST_BYTES:
        raise SystemExit(f"{source} has {len(content)} bytes, over {_LARGEST_BYTES}")
    card = json.loads(source.with_suffix(".json").read_text())
    card["command"] = command
    (_WEIGHTS / f"{name}.safetensors").write_bytes(content)
    (_WEIGHTS / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    manifest_path = _WEIGHTS / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    manifest[name] = hashlib.sha256(content).hexdigest()
    manifest_path.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")
    load_weights(name)
    print(f"released {name}: {len(content)} bytes; now {released_names()}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
