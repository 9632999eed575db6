"""What a masking method is given, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import InconsistentError, UsageError
from qsmnet.geometry import Geometry

_FEWEST_VOXELS = 64


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a scan says about where the object is.

    Parameters
    ----------
    magnitude
        Combined over the echoes, arbitrary unit.
    geometry
        Voxel size and B0 direction.
    first_echo
        Magnitude of the first echo, which signal loss near air has cut least; None takes
        ``magnitude``.
    quality
        Of the phase, 0 (noise) to 1, or what works it out when a method asks; None where there is
        no phase.

    Raises
    ------
    ValueError
        If shapes disagree.
    """

    magnitude: Float[Tensor, "x y z"]
    geometry: Geometry
    first_echo: Float[Tensor, "x y z"] | None = None
    quality: Float[Tensor, "x y z"] | Callable[[], Float[Tensor, "x y z"]] | None = None

    def __post_init__(self) -> None:
        others = [each for each in (self.first_echo, self.quality) if isinstance(each, Tensor)]
        if any(each.shape != self.magnitude.shape for each in others):
            raise ValueError("magnitude, first echo and quality are not on one grid")

    def first_magnitude(self) -> npt.NDArray[np.float64]:
        """First echo's magnitude, else the combined one; NaN and infinity are zero."""
        return finite(self.magnitude if self.first_echo is None else self.first_echo)

    def phase_quality(self, method: str) -> npt.NDArray[np.float64]:
        """Quality of the phase; NaN is zero.

        Raises
        ------
        UsageError
            If there is none: ``method`` needs a scan.
        """
        if self.quality is None:
            fix = "give --phase, or choose --mask bet, --mask magnitude or a mask file"
            raise UsageError("--mask", f"{method} needs the quality of the phase", fix)
        return finite(self.quality if isinstance(self.quality, Tensor) else self.quality())

    def found(self, inside: npt.NDArray[np.bool_]) -> Bool[Tensor, "x y z"]:
        """``inside`` as a mask beside the data.

        Raises
        ------
        InconsistentError
            If hardly anything is inside.
        """
        if int(inside.sum()) < _FEWEST_VOXELS:
            raise InconsistentError(
                "magnitude",
                "no object stands out of it",
                "give a mask: --mask FILE, or --mask whole",
            )
        return torch.from_numpy(np.ascontiguousarray(inside)).to(self.magnitude.device)


@dataclass(frozen=True, slots=True)
class MaskPair:
    """Two masks of one object, for two passes: see `qsmnet.mask.two_pass`.

    Parameters
    ----------
    filled
        The whole object.
    reliable
        The part of it whose phase can be trusted; its holes are at strong sources.

    Raises
    ------
    ValueError
        If ``reliable`` is empty or not part of ``filled``.
    """

    filled: Bool[Tensor, "x y z"]
    reliable: Bool[Tensor, "x y z"]

    def __post_init__(self) -> None:
        if not bool(self.reliable.any()) or bool((self.reliable & ~self.filled).any()):
            raise ValueError("the reliable mask is a part of the filled one, and not empty")


@runtime_checkable
class Mask(Protocol):
    """A method that finds the object; configure it by its fields, then call it."""

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Where the object is."""
        ...


@runtime_checkable
class PairedMask(Mask, Protocol):
    """A `Mask` that knows a second, smaller mask; called as a `Mask` it gives the filled one."""

    def pair(self, evidence: Evidence, /) -> MaskPair:
        """Both masks."""
        ...


def find_mask(method: Mask, evidence: Evidence) -> Bool[Tensor, "x y z"] | MaskPair:
    """Both masks of a method that has two, else its mask."""
    return method.pair(evidence) if isinstance(method, PairedMask) else method(evidence)


def finite(values: Float[Tensor, "x y z"]) -> npt.NDArray[np.float64]:
    """``values`` in float64 on the CPU; NaN and infinity are zero."""
    array = values.detach().cpu().numpy().astype(np.float64)
    return np.nan_to_num(array, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
