"""One training item, and a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsmnet.geometry import Geometry


@dataclass(frozen=True)
class Batch:
    """One training batch; volumes are ``(batch, 1, x, y, z)`` in ppm."""

    field: Tensor
    support: Tensor
    noise: Tensor
    chi: Tensor
    mask: Tensor
    geometry: tuple[Geometry, ...]
    items: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        names = ("field", "support", "noise", "chi", "mask")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class Item:
    """A pair before batching; volumes are ``(x, y, z)`` in ppm."""

    field: Tensor
    support: Tensor
    noise: Tensor
    chi: Tensor
    mask: Tensor
    geometry: Geometry
    index: int


def collate(items: Sequence[Item]) -> Batch:
    """Stack items and add the channel axis."""
    stacked = {
        name: torch.stack([getattr(item, name) for item in items])[:, None].float()
        for name in ("field", "support", "noise", "chi", "mask")
    }
    return Batch(
        **stacked,
        geometry=tuple(item.geometry for item in items),
        items=tuple(item.index for item in items),
    )
