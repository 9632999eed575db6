"""A verb as a Hydra app: ``key=value``, ``--multirun``, ``--config-dir``, ``--cfg job``."""

import os
import sys
from collections.abc import Callable, Sequence
from unittest.mock import patch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qsmnet.cli.compose import defined_in_qsmnet, targets
from qsmnet.errors import UsageError


def run_app(config_name: str, task: Callable[[DictConfig], None], argv: Sequence[str]) -> None:
    """Compose ``configs/<config_name>.yaml`` with ``argv`` and hand it to ``task``.

    Raises
    ------
    UsageError
        If an override is wrong, a value is missing or a target is not allowed.
    """
    command, failures = sys.argv, list[BaseException]()

    def checked(config: DictConfig) -> None:
        try:
            check_targets(config)
            # Lightning starts the processes of further devices by the command line it finds here
            with patch.object(sys, "argv", command):
                task(config)
        except BaseException as error:
            # Hydra would print a line of its own; a sweep must see it, to stop
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failures.append(error)

    # Hydra reads sys.argv, and only with its full-error switch leaves exceptions to the caller
    with (
        patch.object(sys, "argv", [f"qsmnet {config_name}", *argv]),
        patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}),
    ):
        try:
            hydra.main(
                version_base="1.3", config_path="pkg://qsmnet.configs", config_name=config_name
            )(checked)()
            if failures:
                raise failures[0]
        except (HydraException, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            fix = f"see `qsmnet {config_name} --cfg job` for every setting"
            raise UsageError(f"qsmnet {config_name}", reason, fix) from error


def whole_number(config: DictConfig, key: str, least: int) -> int:
    """Value of a top-level key that counts something.

    Raises
    ------
    UsageError
        If it is no whole number of at least ``least``.
    """
    value = OmegaConf.select(config, key)
    if type(value) is not int or value < least:
        fix = f"write {key}={max(least, 1)}"
        raise UsageError(key, f"must be a whole number of at least {least}, got {value}", fix)
    return value


def check_targets(config: DictConfig) -> None:
    """Refuse a config that names code outside of qsmnet and torch's optimizers.

    Raises
    ------
    UsageError
        With the target.
    """
    for target in targets(OmegaConf.to_container(config, resolve=False)):
        if not (_is_optimizer(target) or defined_in_qsmnet(target)):
            raise UsageError("config", f"names the target {target!r}", "use a class of qsmnet")


def _is_optimizer(target: str) -> bool:
    # torch.optim.Adam, but not what lies deeper: torch.optim.adam.torch.load
    return target.rpartition(".")[0] == "torch.optim"
