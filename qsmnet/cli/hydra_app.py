"""A verb as a Hydra app: ``key=value``, ``--multirun``, ``--config-dir``, ``--cfg job``."""

import argparse
import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qsmnet.cli.compose import defined_in_qsmnet, targets
from qsmnet.errors import UsageError
from qsmnet.io.files import write_error

#: What a part raises of settings that it cannot use, where it does not check them.
WRONG_SETTINGS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)

_CONFIG_ERRORS = (HydraException, OmegaConfBaseException)
# settings that are paths: Hydra's grammar trips over half of what a path may hold
_PATHS = (
    "out",
    "resume",
    "init",
    "data.folder",
    "data.validation_folder",
    "data.bank",
    "data.labels",
)
_PATH_OVERRIDE = re.compile(rf"(\+{{0,2}}(?:{'|'.join(map(re.escape, _PATHS))}))=(.+)", re.DOTALL)
# options whose value is the next word, which may hold an equals sign
_FOLDER_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp")


class _Stop(BaseException):
    """Passes through Hydra, which catches an Exception, prints a line and goes on with a sweep."""


def run_app(config_name: str, task: Callable[[DictConfig], None], argv: Sequence[str]) -> None:
    """Compose ``configs/<config_name>.yaml`` with ``argv`` and hand it to ``task``.

    A sweep stops at the first job that fails.

    Raises
    ------
    UsageError
        If an override is wrong, a value is missing or a target is not allowed.
    """
    command, failures = sys.argv, list[BaseException]()

    def checked(config: DictConfig) -> None:
        try:
            check_targets(config, config_dir())
            # Lightning starts the processes of further devices by the command line it finds here
            with patch.object(sys, "argv", command):
                task(config)
        except BaseException as error:
            failures.append(error)
            raise _Stop from error

    try:
        with _called(config_name, argv), contextlib.suppress(_Stop):
            hydra.main(
                version_base="1.3", config_path="pkg://qsmnet.configs", config_name=config_name
            )(checked)()
    except (*_CONFIG_ERRORS, ValueError, yaml.YAMLError) as error:
        raise _wrong_config(config_name, error) from error
    for failure in failures:
        if isinstance(failure, _CONFIG_ERRORS):
            raise _wrong_config(config_name, failure) from failure
        raise failure


@contextlib.contextmanager
def _called(config_name: str, argv: Sequence[str]) -> Iterator[None]:
    """Let Hydra read ``argv``, leave exceptions to the caller and no file where the user stands."""

    def wrong(_: argparse.ArgumentParser, message: str) -> NoReturn:
        fix = f"write key=value; see `qsmnet {config_name} --help`"
        raise UsageError(f"qsmnet {config_name}", message, fix)

    sweep = bool({"-m", "--multirun"} & set(argv))
    arguments = [_readable(each, sweep) for each in _ordered(argv)]
    with (
        tempfile.TemporaryDirectory(prefix="qsmnet-sweep-") as folder,
        patch.object(sys, "argv", [f"qsmnet {config_name}", *arguments]),
        # only with its full-error switch does Hydra leave exceptions to the caller; the other is
        # where the configs put the multirun.yaml of a sweep
        patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1", "QSMNET_SWEEP_FOLDER": folder}),
        patch.object(argparse.ArgumentParser, "error", wrong),
    ):
        yield


def _ordered(argv: Sequence[str]) -> list[str]:
    """Put settings last: argparse takes none that come after an option which follows others."""
    options, settings = list[str](), list[str]()
    for before, word in pairwise(("", *argv)):
        free = not word.startswith("-") and before not in _FOLDER_OPTIONS
        (settings if free and ("=" in word or word.startswith("~")) else options).append(word)
    return [*options, *settings]


def _readable(argument: str, sweep: bool) -> str:
    """Quote a path for Hydra, unless that is done already or, by a comma, it lists a sweep."""
    found = _PATH_OVERRIDE.fullmatch(argument)
    if found is None or found[2] == "null" or (sweep and "," in found[2]):
        return argument
    done = len(found[2]) > 1 and found[2][0] == found[2][-1] and found[2][0] in "\"'"
    return argument if done else f"{found[1]}={QuotedString(found[2], Quote.double).with_quotes()}"


def _wrong_config(config_name: str, error: Exception) -> UsageError:
    fix = f"see `qsmnet {config_name} --cfg job` for every setting"
    if isinstance(error, OverrideParseException):
        fix = "quote a value with special characters, for the shell too: 'key=\"value\"'"
    return UsageError(f"qsmnet {config_name}", " ".join(str(error).split()), fix)


def build(source: str, config: DictConfig | dict[str, Any]) -> Any:  # noqa: ANN401 the type is the config's business
    """Build what a part of a config describes; an error is that of the part, not Hydra's.

    Raises
    ------
    UsageError
        If it does not take these settings.
    QsmnetError
        What the part itself raises, or an `OutputError` or `ResourceError` if it cannot write.
    """
    try:
        return instantiate(config, _convert_="all")
    except HydraException as error:
        cause: BaseException = error
        while isinstance(cause, HydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError):
            raise write_error(Path(cause.filename or source), cause) from error
        if isinstance(cause, (HydraException, ImportError, *WRONG_SETTINGS)):
            reason = " ".join(str(cause).split())
            raise UsageError(source, reason, "change its settings") from error
        raise cause from error


def whole_number(config: DictConfig, key: str, least: int, most: int | None = None) -> int:
    """Value of a key that counts something.

    Raises
    ------
    UsageError
        If it is no whole number of at least ``least``, and at most ``most``.
    """
    value = OmegaConf.select(config, key)
    if most is not None and type(value) is int and value > most:
        raise UsageError(key, f"must be at most {most}, got {value}", f"write {key}={most}")
    if type(value) is not int or value < least:
        fix = f"write {key}={max(least, 1)}"
        raise UsageError(key, f"must be a whole number of at least {least}, got {value}", fix)
    return value


def share(config: DictConfig, key: str) -> float:
    """Value of a key that lies between 0 and 1.

    Raises
    ------
    UsageError
        If it does not.
    """
    value = OmegaConf.select(config, key)
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise UsageError(key, f"must be a number from 0 to 1, got {value}", f"write {key}=0.5")
    return float(value)


def switch(config: DictConfig, key: str) -> bool:
    """Value of a key that is true or false; a word such as ``no`` is neither.

    Raises
    ------
    UsageError
        If it is anything else.
    """
    value = OmegaConf.select(config, key)
    if type(value) is not bool:
        raise UsageError(key, f"must be true or false, got {value}", f"write {key}=true")
    return value


def folder_named(config: DictConfig, key: str) -> Path:
    """Folder that a key names.

    Raises
    ------
    UsageError
        If it names none.
    """
    value = OmegaConf.select(config, key)
    if not isinstance(value, (str, int, float)) or not str(value).strip():
        raise UsageError(key, "names no folder", f"write {key}=DIR")
    return Path(str(value))


def config_dir() -> Path | None:
    """Folder that the running app was given by ``--config-dir``."""
    sources = HydraConfig.get().runtime.config_sources
    return next((Path(each.path) for each in sources if each.provider == "command-line"), None)


def check_targets(config: DictConfig, own: Path | None = None) -> None:
    """Refuse a config that names code outside of qsmnet and torch's optimizers.

    Parameters
    ----------
    config
        Nothing of it has been built yet.
    own
        Folder whose Python files it may name too, and which becomes importable: to name it on the
        command line is the consent.

    Raises
    ------
    UsageError
        With the target.
    """
    if own is not None and str(own) not in sys.path:
        sys.path.append(str(own))  # last: it must not shadow anything
    for target in targets(OmegaConf.to_container(config, resolve=False)):
        if _is_optimizer(target) or defined_in_qsmnet(target):
            continue
        if own is None or not _lies_in(own, target):
            fix = "use a class of qsmnet, or of a Python file in the folder given by --config-dir"
            raise UsageError("config", f"names the target {target!r}", fix)


def _lies_in(folder: Path, target: str) -> bool:
    """Whether a dotted name is a class or function of a Python file in ``folder``."""
    try:
        # of the first part, which imports nothing yet
        spec = importlib.util.find_spec(target.partition(".")[0])
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None or folder not in Path(spec.origin).parents:
        return False
    try:
        return callable(get_object(target))
    except Exception as error:  # what a user's module raises has no common base
        reason = " ".join(str(error).split())
        raise UsageError(target, f"cannot be imported: {reason}", "repair it") from error


def _is_optimizer(target: str) -> bool:
    # torch.optim.Adam, but not what lies deeper: torch.optim.adam.torch.load
    return target.rpartition(".")[0] == "torch.optim"
