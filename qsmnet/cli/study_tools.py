"""Methods of studies, from this package's configs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate

from qsmnet.cli.compose import available, compose, defined_in_qsmnet
from qsmnet.cli.preset import STAGES, Preset
from qsmnet.errors import UsageError
from qsmnet.evaluate.stage_study import TRUTH, named
from qsmnet.evaluate.tools import Tools
from qsmnet.pipeline import Pipeline
from qsmnet.volumes import LocalField, Scan, Susceptibility


def tools() -> Tools:
    """Methods of the package's configs."""
    return Tools(available, compose, make, front, pipeline)


def make(settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 the type is the target's business
    """Build what a mapping with ``_target_`` describes; None if this package has no such thing.

    Raises
    ------
    UsageError
        If the target is not of this package, or a setting is wrong.
    """
    target = str(settings["_target_"])
    if not defined_in_qsmnet(target):
        raise UsageError(target, "is outside of qsmnet", "name a class of it")
    try:
        get_object(target)
    except (ImportError, ValueError):
        return None
    try:
        return instantiate(dict(settings), _convert_="all")
    except (HydraException, TypeError, ValueError) as error:
        raise UsageError(target, " ".join(str(error).split()), "change its settings") from error


def front(preset: str) -> Callable[[Scan], LocalField]:
    """From a scan to a local field by a preset's stages.

    Raises
    ------
    UsageError
        When called, if the preset has two masks, whose fields are two.
    """
    chosen: Preset = compose("preset", preset)
    # the cheapest there is: its map is not used
    choices = {stage: chosen.choice(stage) for stage in STAGES if stage != "inverter"}
    stages: dict[str, Any] = {s: compose(s, c.name, c.overrides) for s, c in choices.items()}
    pipeline = Pipeline(inverter=compose("inverter", "tkd"), **stages)

    def local_field(scan: Scan) -> LocalField:
        mask = pipeline.object_mask(scan)
        if not isinstance(mask, torch.Tensor):
            fix = "choose a preset with one mask"
            raise UsageError(f"preset {preset!r}", "makes two passes, with two fields", fix)
        found = pipeline.reconstruct(scan, mask).local_field
        if found is None:
            raise UsageError(f"preset {preset!r}", "makes no local field", "choose another")
        return found

    return local_field


def pipeline(stages: Mapping[str, Any]) -> Callable[..., Susceptibility]:
    """From scan and mask to chi, by stages of config groups; the true mask is what is handed in."""
    stages = {**stages, "mask": "whole"} if stages["mask"] == TRUTH else stages
    made = Pipeline(**{group: compose(group, *named(stage)) for group, stage in stages.items()})
    return lambda scan, mask: made.reconstruct(scan, mask).susceptibility
