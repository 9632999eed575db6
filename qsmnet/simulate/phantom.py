"""What a source of susceptibility is: it draws a record and renders it to a phantom."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qsmnet.simulate.grid import Grid

#: Plain JSON: numbers, strings, lists and dictionaries.
Record = dict[str, Any]


@dataclass(frozen=True)
class Phantom:
    """Susceptibility with its support.

    Parameters
    ----------
    chi
        ``(x, y, z)`` in ppm.
    mask
        The object.
    segmentation
        Labels of `qsmnet.simulate.tissue`; 0 where a phantom has no tissue.
    """

    chi: Float[Tensor, "x y z"]
    mask: Bool[Tensor, "x y z"]
    segmentation: UInt8[Tensor, "x y z"]


@runtime_checkable
class Source(Protocol):
    """Draw -> record -> render."""

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Everything random about one phantom, as plain JSON."""
        ...

    def render(self, record: Record, grid: Grid) -> Phantom:
        """Make the phantom of a record; no random choice is left."""
        ...
