"""Weights on disk: safetensors, a JSON card, and a SHA-256 that is checked on every load.

A flipped bit in a weights file changes no header and raises nothing; only the hash tells.
"""

import hashlib
import importlib
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from qsmnet.errors import UnreadableError, WeightsError
from qsmnet.io.files import write_bytes, write_json

Card = dict[str, Any]

#: What a card may name: it names code that is run, so that nothing else is allowed.
ALLOWED_NETWORKS = "qsmnet.networks."
FORMAT = 1

# numbers that a card may state of its training, and how many each has
_TRAINED_FOR = {
    "voxel_size_mm": 2,
    "slice_ratio": 2,
    "in_plane_ratio": 1,
    "tilt_degrees": 1,
    "noise_ppm": 2,
}
_OTHER_VERSION = "use the version of qsmnet that wrote it"

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
    UnreadableError
        If the file may not be read.
    """
    path = _resolve(name_or_path)
    card = _read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(path, _unreadable(error), "check its permissions") from error
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
    if not target.startswith(ALLOWED_NETWORKS):
        raise WeightsError(
            source, f"its card names {target!r}, not a network of qsmnet", "do not trust this file"
        )
    network = _network_class(target, source)
    try:
        return network(**{str(k): v for k, v in config.items() if k != "_target_"})
    except Exception as error:  # what strange parameters make a constructor raise has no base
        raise WeightsError(
            source, f"network {target} cannot be built ({error})", _OTHER_VERSION
        ) from error


def _network_class(target: str, source: str) -> type[nn.Module]:
    """Look the class up, and call nothing that is no network of this package."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise WeightsError(source, f"there is no network {target}", _OTHER_VERSION) from error
    is_network = isinstance(found, type) and issubclass(found, nn.Module)
    if not is_network or not found.__module__.startswith(ALLOWED_NETWORKS):
        raise WeightsError(source, f"{target} is not a network", "do not trust this file")
    return typing.cast("type[nn.Module]", found)


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
    try:
        found = path.is_file()
    except OSError as error:
        raise UnreadableError(path, _unreadable(error), "check its permissions") from error
    if not found:
        raise WeightsError(path.name, "file not found", "check the path")
    return path


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def _read_card(path: Path) -> Card:
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            card_path.name, "the card is missing", f"put it beside {path.name}"
        ) from error
    except OSError as error:
        raise WeightsError(card_path.name, _unreadable(error), "copy it again") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(card_path.name, f"is not JSON ({error})", "copy it again") from error
    if not isinstance(card, dict) or not {"sha256", "network", "format"} <= set(card):
        raise WeightsError(card_path.name, "lacks sha256, network or format", "copy it again")
    if card["format"] != FORMAT:
        raise WeightsError(
            card_path.name, f"format {card['format']} is not {FORMAT}", "update qsmnet"
        )
    _check_card(card, card_path.name)
    return dict(card)


def _check_card(card: Card, source: str) -> None:
    """Refuse what the rest of the package would stumble over."""
    if not isinstance(card["network"], dict) or not isinstance(card["sha256"], str):
        raise WeightsError(source, "network or sha256 is malformed", "copy it again")
    trained = card.get("trained_for", {})
    if not isinstance(trained, dict):
        raise WeightsError(source, "trained_for is malformed", "copy it again")
    for name, count in _TRAINED_FOR.items():
        stated = trained.get(name, [0.0] * count if count > 1 else 0.0)
        numbers = stated if count > 1 and isinstance(stated, list) else [stated]
        if len(numbers) != count or not all(map(_is_number, numbers)):
            problem = f"trained_for.{name} is not {'two numbers' if count > 1 else 'a number'}"
            raise WeightsError(source, problem, "copy it again")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


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
