"""Training pairs from label maps of the user's own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qsmnet.simulate.anatomy import Anatomy, with_maps
from qsmnet.simulate.simulator import Simulator
from qsmnet.training.data import PairsModule, simulated_pairs


def anatomy_pairs(
    training: Simulator,
    labels: Path | str,
    maps: Sequence[int] | None = None,
    validation_maps: Sequence[int] | None = None,
    **settings: Any,  # noqa: ANN401 those of another function, which checks them
) -> PairsModule:
    """`qsmnet.training.data.simulated_pairs` with brains of the label maps in ``labels``.

    Parameters
    ----------
    training
        With `qsmnet.simulate.anatomy.Anatomy` among its sources.
    labels
        Folder with label maps.
    maps, validation_maps
        Numbers of the maps that items are drawn from, in training and in validation; None leaves
        the simulator's.
    settings
        Those of `simulated_pairs`.

    Raises
    ------
    ValueError
        If the simulator uses no label maps, or as `simulated_pairs`.
    UnreadableError
        If the folder has not these maps.
    """
    seen = anatomy_simulator(training, labels, maps)
    unseen = anatomy_simulator(seen, labels, validation_maps)
    pairs = simulated_pairs(seen, validation=unseen, **settings)
    pairs.materials = {"training": seen.materials, "validation": unseen.materials}
    return pairs


def anatomy_simulator(
    simulator: Simulator, labels: Path | str, maps: Sequence[int] | None = None
) -> Simulator:
    """Return a simulator with the label maps of a folder.

    Raises
    ------
    ValueError
        If it uses none.
    UnreadableError
        If the folder has not these maps.
    """
    if not any(isinstance(source, Anatomy) for source in simulator.sources.values()):
        problem = "data.labels is for a simulator of label maps"
        raise ValueError(f"{problem}: write simulator=anatomy_mixture")
    sources = {k: with_maps(each, str(labels), maps) for k, each in simulator.sources.items()}
    return replace(simulator, sources=sources)
