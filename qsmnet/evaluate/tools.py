"""How studies come by methods: what the config groups are is no business of theirs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsmnet.volumes import LocalField, Scan


@dataclass(frozen=True)
class Tools:
    """How methods are found and built.

    Parameters
    ----------
    available
        Names in a config group.
    build
        A method of a group, by name and overrides.
    make
        What a mapping with ``_target_`` describes; None if that is not there.
    front
        From a scan to a local field by all stages of a preset before the inversion.
    pipeline
        From scan and mask (None finds it) to chi, by stages of config groups: each a name, or a
        list of it and overrides.
    """

    available: Callable[[str], Sequence[str]]
    build: Callable[[str, str, Sequence[str]], Any]
    make: Callable[[Mapping[str, Any]], Any]
    front: Callable[[str], Callable[[Scan], LocalField]]
    pipeline: Callable[[Mapping[str, Any]], Callable[..., Any]]
