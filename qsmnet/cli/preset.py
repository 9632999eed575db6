"""Presets: one name for the method of every stage, with its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsmnet.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """A method by name, and its parameters as ``key=value``."""

    name: str
    overrides: Sequence[str] = ()

    def changed(self, name: str | None, overrides: Sequence[str]) -> "Choice":
        """Put the user's choices on top; another method starts without this one's parameters."""
        if name is not None and name != self.name:
            return Choice(name, tuple(overrides))
        return Choice(self.name, (*self.overrides, *overrides))


@dataclass(frozen=True)
class Preset:
    """A method for every stage of the pipeline.

    Parameters
    ----------
    offset, unwrap, fit, mask, background, inverter
        ``{name: METHOD, parameter: value, ...}`` of the config group of that name.
    reference
        What zero of the map means, as ``--reference``.

    Raises
    ------
    UsageError
        If a stage names no method.
    """

    offset: Mapping[str, Any]
    unwrap: Mapping[str, Any]
    fit: Mapping[str, Any]
    mask: Mapping[str, Any]
    background: Mapping[str, Any]
    inverter: Mapping[str, Any]
    reference: str = "mean"

    def __post_init__(self) -> None:
        for stage in STAGES:
            if "name" not in getattr(self, stage):
                fix = f"write {stage}: {{name: METHOD, parameter: value}}"
                raise UsageError("preset", f"its {stage} names no method", fix)

    def choice(self, stage: str) -> Choice:
        """Say a stage as the command line would."""
        parameters = dict(getattr(self, stage))
        name = str(parameters.pop("name"))
        return Choice(name, tuple(f"{key}={value}" for key, value in parameters.items()))


#: Config groups in the order of the pipeline.
STAGES = ("offset", "unwrap", "fit", "mask", "background", "inverter")
