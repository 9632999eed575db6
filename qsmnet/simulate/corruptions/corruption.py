"""What a corruption is: it draws a record, or none, and changes the scene that was measured."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.simulate.phantom import Record
from qsmnet.simulate.scene import Scene

#: Susceptibility in ppm to its field in ppm, by the kernel and geometry of the scene.
Forward = Callable[[Tensor], Tensor]


@runtime_checkable
class Corruption(Protocol):
    """One kind of error.

    Where none is drawn the scene stays as it was, exactly.
    """

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Everything random about one scene's error as plain JSON; None for none."""
        ...

    def apply(self, record: Record, scene: Scene, forward: Forward) -> Scene:
        """Corrupt a scene; no random choice is left."""
        ...


def check_share(name: str, value: float, largest: float = 1.0) -> None:
    """Refuse what does not lie in [0, ``largest``].

    Raises
    ------
    ValueError
        With the setting.
    """
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must be a number from 0 to {largest:g}, got {value}")


def rms(volume: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"]) -> float:
    """Root mean square within a mask; 0 where it is empty."""
    return float(volume[mask].square().mean().sqrt()) if bool(mask.any()) else 0.0


def known_outside(scene: Scene) -> bool:
    """Whether the field is known where no susceptibility is sought."""
    return bool((scene.field_support & ~scene.mask).any())


def with_field(scene: Scene, added: Float[Tensor, "x y z"]) -> Scene:
    """Add to the measured field where it is known."""
    field = scene.local_field + added * scene.field_support
    return replace(scene, local_field=field)


def with_mask(scene: Scene, mask: Bool[Tensor, "x y z"], source: Tensor | None) -> Scene:
    """Seek susceptibility on a smaller mask, where alone the field then counts as known.

    Parameters
    ----------
    source
        Field in ppm of the susceptibility that is left out, to be taken off; None leaves it in.
    """
    support = scene.field_support if known_outside(scene) else scene.field_support & mask
    exact = scene.local_field_exact if source is None else scene.local_field_exact - source
    off = 0.0 if source is None else source
    return replace(
        scene,
        chi=scene.chi * mask,
        mask=mask,
        segmentation=scene.segmentation * mask,
        local_field=(scene.local_field - off) * support,
        local_field_exact=exact,
        field_support=support,
    )
