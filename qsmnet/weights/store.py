"""Weights on disk: safetensors, a JSON card, and a SHA-256 that is checked on every load.

A flipped bit in a weights file changes no header and raises nothing; only the hash tells.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from qsmnet.errors import WeightsError
from qsmnet.io.files import write_bytes, write_json

Card = dict[str, Any]

#: What a card may name: it names code that is run, so that nothing else is allowed.
ALLOWED_NETWORKS = "qsmnet.networks."
FORMAT = 1

_FOLDER = Path(__file__).parent
_MANIFEST = _FOLDER / "manifest.json"


def released_names() -> list[str]:
    """Names of the weights in the package."""
    return sorted(_manifest())


def verify_released() -> list[tuple[str, bool]]:
    """Whether each released file still has the SHA-256 of the manifest."""
    return [
        (name, _hash_of_file(_released(name)) == sha) for name, sha in sorted(_manifest().items())
    ]


def load_weights(name_or_path: str | Path) -> tuple[nn.Module, Card]:
    """Network in evaluation mode with its card.

    Parameters
    ----------
    name_or_path
        A released name (`released_names`), or a ``.safetensors`` file with its ``.json`` card
        beside it.

    Raises
    ------
    WeightsError
        If the file or its card is missing or damaged, names a network outside of the package or
        does not fit it.
    """
    path = _resolve(name_or_path)
    card = _read_card(path)
    content = path.read_bytes()
    expected = _manifest().get(str(name_or_path), card["sha256"])
    if hashlib.sha256(content).hexdigest() != expected:
        raise WeightsError(
            path.name, "the file is damaged: its SHA-256 is not its card's", "copy it again"
        )
    network = build_network(card["network"], path.name)
    try:
        network.load_state_dict(load(content))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            path.name, f"does not fit its network ({reason})", "use the card made with it"
        ) from error
    _refuse_not_finite(network, path)
    return network.eval(), card


def save_weights(
    path: Path, state: Mapping[str, Tensor], card: Card, overwrite: bool = False
) -> Card:
    """Write ``path`` (.safetensors) and its card beside it; returns the card with hash and format.

    Raises
    ------
    qsmnet.errors.OutputError
        If one of the two exists and ``overwrite`` is not set.
    """
    content = save({k: v.detach().contiguous().cpu().clone() for k, v in state.items()})
    full = {"format": FORMAT, **card, "sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(path, content, overwrite)
    write_json(path.with_suffix(".json"), full, overwrite)
    return full


def build_network(config: Mapping[str, Any], source: str) -> nn.Module:
    """Network of a resolved config ``{_target_: qsmnet.networks.file.Class, parameter: value}``.

    Raises
    ------
    WeightsError
        If the target is not a network of this package, or the parameters are not its own.
    """
    target = str(config.get("_target_", ""))
    module, _, name = target.rpartition(".")
    if not target.startswith(ALLOWED_NETWORKS):
        raise WeightsError(
            source, f"its card names {target!r}, not a network of qsmnet", "do not trust this file"
        )
    parameters = {k: v for k, v in config.items() if k != "_target_"}
    try:
        network = getattr(importlib.import_module(module), name)(**parameters)
    except (ImportError, AttributeError, TypeError) as error:
        raise WeightsError(
            source,
            f"network {target} cannot be built ({error})",
            "use the version of qsmnet that wrote it",
        ) from error
    if not isinstance(network, nn.Module):
        raise WeightsError(source, f"{target} is not a network", "do not trust this file")
    return network


def _resolve(name_or_path: str | Path) -> Path:
    if str(name_or_path) in _manifest():
        return _released(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix != ".safetensors":
        names = ", ".join(released_names()) or "none"
        raise WeightsError(
            str(name_or_path),
            f"no such released weights (there are: {names})",
            "name one of them or a .safetensors file",
        )
    if not path.is_file():
        raise WeightsError(path.name, "file not found", "check the path")
    return path


def _read_card(path: Path) -> Card:
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            card_path.name, "the card is missing", f"put it beside {path.name}"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsError(card_path.name, f"is not JSON ({error})", "copy it again") from error
    if not isinstance(card, dict) or not {"sha256", "network", "format"} <= set(card):
        raise WeightsError(card_path.name, "lacks sha256, network or format", "copy it again")
    if card["format"] != FORMAT:
        raise WeightsError(
            card_path.name, f"format {card['format']} is not {FORMAT}", "update qsmnet"
        )
    return dict(card)


def _refuse_not_finite(network: nn.Module, path: Path) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
        raise WeightsError(path.name, "holds NaN or infinity", "train it again")


def _manifest() -> dict[str, str]:
    if not _MANIFEST.exists():
        return {}
    names: dict[str, str] = json.loads(_MANIFEST.read_text(encoding="utf-8"))
    return names


def _released(name: str) -> Path:
    return _FOLDER / f"{name}.safetensors"


def _hash_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
