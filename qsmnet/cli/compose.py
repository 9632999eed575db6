"""From a method's name and a few settings to the method, by Hydra: the configs are the registry."""

import difflib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import (
    BooleanNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    OmegaConf,
    StringNode,
    ValueNode,
)
from omegaconf.errors import OmegaConfBaseException

from qsmnet.errors import QsmnetError, UsageError, WeightsError

#: Value of a strength that is to be chosen from the data.
AUTO = "auto"
_NODES: dict[type, Callable[..., ValueNode]] = {
    bool: BooleanNode,
    int: IntegerNode,
    float: FloatNode,
    str: StringNode,
}


def compose(
    group: str, name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Any:  # noqa: ANN401 the type is the config's business
    """Build the method that ``<group>/<name>.yaml`` describes.

    The YAML comes from the user's ``config_dir`` if it is there, else from the package. A packaged
    one may only name classes and functions of qsmnet. The user's own may name any: naming the
    folder on the command line is the consent, and the folder is importable, so that a
    ``my_method.py`` in it is enough. Nothing read from a checkpoint ever comes here.

    Parameters
    ----------
    group
        Config group: ``inverter``, ``unwrap``, ``background``, ``mask``, ...
    name
        File in the group, without ``.yaml``.
    overrides
        ``key=value`` for the method's parameters, such as ``threshold=0.2``. ``auto`` for the
        strength of an inverter's regularisation has it chosen from each field.
    config_dir
        Folder with the user's own groups.

    Raises
    ------
    UsageError
        If the name, a parameter or a value is wrong (with what is valid), or a target not allowed.
    QsmnetError
        Whatever the method itself raises, such as `WeightsError`.
    """
    config = _configured(group, name, overrides, config_dir)
    automatic = _pop_automatic(f"{group} {name!r}", group, config)
    try:
        method = instantiate(config, _convert_="all")
    except (HydraException, ValueError, TypeError) as error:
        raise _construction_error(group, name, error) from error
    return _automatic(method, automatic) if automatic else method


def _pop_automatic(source: str, group: str, config: DictConfig) -> str:
    """Name of the parameter that is to be chosen from the data, taken out; empty for none."""
    hints = _hints(config["_target_"]) if AUTO in config.values() else {}
    asked = [str(k) for k, v in config.items() if v == AUTO and hints.get(str(k)) is float]
    if asked and (group != "inverter" or len(asked) > 1):
        problem = f"{' and '.join(asked)} cannot be chosen from the data"
        raise UsageError(source, problem, "use auto for one strength of an inverter")
    for key in asked:
        del config[key]  # the class's default is where the search starts
    return asked[0] if asked else ""


def _automatic(method: Any, parameter: str) -> Any:  # noqa: ANN401 the type is the config's business
    from qsmnet.inversion.automatic import Automatic

    return Automatic(method, parameter)


def settings(
    group: str, name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> dict[str, Any]:
    """Parameters that `compose` would use, as plain data for a record.

    Raises
    ------
    UsageError
        As `compose`.
    """
    config = _configured(group, name, overrides, config_dir)
    return typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))


def checked_weights(
    inverter: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> dict[str, str] | None:
    """Name and SHA-256 of the weights that an inverter would use, verified; None if it has none.

    To be called before anything is computed: the method itself loads them when it runs.

    Raises
    ------
    UsageError
        If the device is not there.
    WeightsError
        If the weights are damaged, or of another network than the method's released ones.
    """
    from qsmnet.weights.store import load_weights

    chosen = settings("inverter", inverter, overrides, config_dir)
    if not _is_learned(chosen["_target_"]):
        return None
    _check_device(inverter, str(chosen.get("device", "cpu")))
    weights = str(chosen["weights"])
    _, card = load_weights(weights)
    released = str(settings("inverter", inverter, (), config_dir).get("weights"))
    if weights != released:
        _check_network(inverter, released, weights)
    return {"name": Path(weights).name, "sha256": str(card["sha256"])}


def _is_learned(target: str) -> bool:
    from qsmnet.inversion.learned import LearnedInverter

    try:
        found = get_object(target)
    except Exception:  # noqa: BLE001 any failure of a user's module; instantiation reports it
        return False
    return inspect.isclass(found) and issubclass(found, LearnedInverter)


def _check_network(inverter: str, released: str, weights: str) -> None:
    """Refuse weights that would make a method what it is not called."""
    wanted, found = _network(released), _network(weights)
    if wanted in (None, found):  # nothing to compare with, or the same
        return
    packaged = {name: settings("inverter", name).get("weights") for name in available("inverter")}
    fitting = [name for name, each in packaged.items() if _network(each) == found]
    fix = f"choose --inverter {fitting[0]}" if fitting else "write a config of your own for it"
    problem = f"made for {found}, but {inverter} is {wanted}"
    raise WeightsError(Path(weights).name, problem, fix)


def _network(weights: object) -> str | None:
    """Class of the network that released weights, or a file's, are for; None if there are none."""
    from qsmnet.weights.store import load_weights, released_names

    if weights not in released_names() and Path(str(weights)).suffix != ".safetensors":
        return None
    return str(load_weights(str(weights))[1]["network"]["_target_"])


def _check_device(inverter: str, device: str) -> None:
    import torch

    try:
        usable = bool(torch.ones(1, device=device) > 0)  # what has no data, as meta, raises
    except (RuntimeError, AssertionError, ImportError, ValueError):
        usable = False
    if not usable:
        there = ["cpu"]
        there += ["cuda"] if torch.cuda.is_available() else []
        there += ["mps"] if torch.backends.mps.is_available() else []
        problem = f"device={device} cannot be used on this machine"
        raise UsageError(f"inverter {inverter!r}", problem, f"use device={' or '.join(there)}")


def available(group: str, config_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names in a group, the package's and the user's, sorted."""
    packaged = resources.files("qsmnet.configs") / group
    names = {item.name for item in packaged.iterdir()} if packaged.is_dir() else set()
    if config_dir is not None:
        names |= {item.name for item in (Path(config_dir) / group).glob("*.yaml")}
    return tuple(sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml")))


def _configured(
    group: str, name: str, overrides: Sequence[str], config_dir: str | Path | None
) -> DictConfig:
    """Find, compose and check; nothing outside of qsmnet is imported before the check."""
    folder = None if config_dir is None else Path(config_dir).absolute()
    # the slash makes a file no match
    if folder is not None and not os.access(f"{folder}/", os.R_OK | os.X_OK):
        problem = f"{config_dir} is not a folder that can be read"
        raise UsageError("--config-dir", problem, "name a folder with configs")
    _check_name(group, name, folder)
    own = folder is not None and (folder / group / f"{name}.yaml").is_file()
    config = _load(group, name, folder if own else None)
    if own:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # last: it must not shadow anything
    else:
        _check_targets(f"{group} {name!r}", config)
    _apply(f"{group} {name!r}", config, overrides)
    return config


def _check_name(group: str, name: str, folder: Path | None) -> None:
    names = available(group, folder)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        fix = f"{hint}there are: {', '.join(names) or 'none'}"
        raise UsageError(f"{group} {name!r}", "is not known", fix)


def _load(group: str, name: str, folder: Path | None) -> DictConfig:
    """Compose ``<group>/<name>.yaml`` and its defaults; leave Hydra's global state as it was."""
    running = GlobalHydra.instance().hydra  # inside a Hydra app there is one already
    GlobalHydra.instance().clear()
    try:
        if folder is None:
            with initialize_config_module("qsmnet.configs", version_base="1.3"):
                return _group(hydra_compose(f"{group}/{name}"), group)
        search = "hydra.searchpath=[pkg://qsmnet.configs]"
        with initialize_config_dir(str(folder), version_base="1.3"):
            return _group(hydra_compose(f"{group}/{name}", overrides=[search]), group)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UsageError(
            f"{group} {name!r}", f"is a broken config: {error}", "repair it"
        ) from error
    finally:
        GlobalHydra.instance().hydra = running


def _group(config: DictConfig, group: str) -> DictConfig:
    # a config in a group lands under the group's name, unless its header says @package _global_
    for part in group.split("/"):
        config = config.get(part, config)
    OmegaConf.set_struct(config, False)
    return config


def targets(node: object) -> Iterator[str]:
    """Every ``_target_`` in nested dictionaries and lists."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def _check_targets(source: str, config: DictConfig) -> None:
    """Allow qsmnet's own classes and functions only, nested ones included, before instantiation.

    The name alone is not enough: ``qsmnet.io.files.os.system`` starts well, too.
    """
    for target in targets(OmegaConf.to_container(config, resolve=True)):
        if not defined_in_qsmnet(target):
            fix = "put the method and its YAML into a folder of yours, and name it by --config-dir"
            raise UsageError(source, f"names the target {target!r}, outside of qsmnet", fix)


def defined_in_qsmnet(target: str) -> bool:
    """Whether a dotted name is code of this package, not what one of its modules has imported."""
    if not target.startswith("qsmnet."):
        return False
    try:
        found = get_object(target)
    except (ValueError, ImportError):  # what is not there cannot run: instantiation will say so
        return True
    module = getattr(found, "__module__", "") or ""
    return callable(found) and (module + ".").startswith("qsmnet.")


def _apply(source: str, config: DictConfig, overrides: Sequence[str]) -> None:
    """Set ``key=value`` in place; keys must exist, values must fit the parameter's type."""
    if "_target_" not in config:
        raise UsageError(source, "has no _target_", "name the class to build in its YAML")
    hints = _hints(config["_target_"])
    known = [str(key) for key in config if not str(key).startswith("_")]
    known += [key for key in hints if key not in known]
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(source, f"setting {override!r} has no value", "write name=value")
        _check_key(source, key, known)
        _check_parent(source, key, config)
        value = text if hints.get(key) is str else _parse(source, key, text)
        OmegaConf.update(config, key, _fit(source, key, value, hints.get(key)))


def _check_key(source: str, key: str, known: Sequence[str]) -> None:
    parts = key.split(".")
    if parts[0] not in known or any(part.startswith("_") for part in parts):
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        fix = f"{hint}it has: {', '.join(known) or 'none'}"
        raise UsageError(source, f"has no parameter {key!r}", fix)


def _check_parent(source: str, key: str, config: DictConfig) -> None:
    parent, dot, _ = key.rpartition(".")
    if dot and not isinstance(OmegaConf.select(config, parent), DictConfig):
        raise UsageError(source, f"{parent} has no parts, so no {key}", f"write {parent}=value")


def _parse(source: str, key: str, text: str) -> object:
    # by YAML's rules, not Hydra's override grammar, which trips over paths with commas or brackets
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
    except Exception as error:  # PyYAML's and OmegaConf's errors have no common base
        raise UsageError(source, f"{key}={text} cannot be read", "quote the value") from error
    if any(targets(value)):
        raise UsageError(source, f"{key} names a target", "give a number, a word or a list")
    return typing.cast("dict[str, object]", value)["value"]


def _hints(target: str) -> dict[str, Any]:
    """List constructor parameters and their types; {} where they cannot be known."""
    try:
        found = get_object(target)
        signature = inspect.signature(found)
        hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except Exception:  # noqa: BLE001 any failure of a user's module; instantiation reports it
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in kinds]
    return {name: hints.get(name, Any) for name in names}


def _fit(source: str, key: str, value: object, hint: Any) -> object:  # noqa: ANN401 any annotation
    """Value as the parameter's type, where that is a choice, bool, int, float or str."""
    optional = type(None) in typing.get_args(hint)
    if optional and value is None:
        return None
    if optional and len(only := set(typing.get_args(hint)) - {type(None)}) == 1:
        hint = only.pop()
    if typing.get_origin(hint) is typing.Literal:
        return _choose(source, key, value, typing.get_args(hint))
    if hint not in _NODES or (hint is float and value == AUTO):
        return value
    try:
        return _NODES[hint](value, is_optional=False)._value()
    except OmegaConfBaseException as error:
        fix = f"give a {hint.__name__}"
        raise UsageError(source, f"{key}={value} is not a {hint.__name__}", fix) from error


def _choose(source: str, key: str, value: object, choices: tuple[Any, ...]) -> object:
    if value not in choices:
        fix = f"use one of {', '.join(map(str, choices))}"
        raise UsageError(source, f"{key}={value} is not a choice", fix)
    return value


def _construction_error(group: str, name: str, error: Exception) -> QsmnetError:
    """Find, under Hydra's wrapping, what the method itself objected to."""
    cause: BaseException = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, QsmnetError):
        return cause
    fix = "repair the class" if isinstance(cause, ImportError) else "change its parameters"
    return UsageError(f"{group} {name!r}", f"cannot be built: {cause}", fix)
