"""One training item, and a batch of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from qsmnet.errors import QsmnetError
from qsmnet.geometry import Geometry
from qsmnet.volumes import quiet_support

#: Volumes that every item has.
VOLUMES = ("field", "support", "noise", "chi", "mask")


@dataclass(frozen=True)
class Item:
    """A pair before batching; volumes are ``(x, y, z)`` in ppm.

    Parameters
    ----------
    field
        Local field in ppm, zero where it is unknown.
    support
        Where the field is known.
    noise
        Standard deviation of the field in ppm, as the network is told.
    chi
        True susceptibility in ppm.
    mask
        Support of chi.
    geometry
        Voxel size and B0 direction.
    index
        Number in its data set.
    magnitude
        Of the gradient echo, arbitrary unit; None where there is none.
    """

    field: Tensor
    support: Tensor
    noise: Tensor
    chi: Tensor
    mask: Tensor
    geometry: Geometry
    index: int
    magnitude: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Item":
        """Apply a change to each volume, such as a crop."""
        changed: dict[str, Any] = {name: change(volume) for name, volume in _volumes(self)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Batch:
    """One training batch: the volumes of `Item` as ``(batch, 1, x, y, z)`` float32.

    The magnitude is None where no item has one, and zero for an item without.
    """

    field: Tensor
    support: Tensor
    noise: Tensor
    chi: Tensor
    mask: Tensor
    geometry: tuple[Geometry, ...]
    items: tuple[int, ...]
    magnitude: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Move the volumes to another device."""
        return replace(self, **{name: volume.to(device) for name, volume in _volumes(self)})

    def without_voids(self) -> "Batch":
        """Take signal voids for unknown (`qsmnet.volumes.quiet_support`), crop by crop."""
        items = zip(self.support, self.noise, self.mask, strict=True)
        support = torch.stack([quiet_support(*item) for item in items])
        return replace(self, field=self.field * (support > 0), support=support)

    def inputs(self, network: nn.Module) -> tuple[Any, ...]:
        """Return what a network is given, as `qsmnet.networks.contract.Network` orders it.

        Without signal voids, unless it weighs each voxel by its noise: as `LearnedInverter` does.
        """
        shown = self if getattr(network, "weighs_noise", False) else self.without_voids()
        given = shown.field, shown.support, shown.noise, shown.mask, shown.geometry
        return (*given, self.magnitude) if getattr(network, "magnitude", False) else given


def _volumes(of: Item | Batch) -> Iterator[tuple[str, Any]]:
    """Volumes that are there, by name."""
    for name in (*VOLUMES, "magnitude"):
        if getattr(of, name) is not None:
            yield name, getattr(of, name)


@dataclass(frozen=True)
class Failure:
    """An error of a loader's process on its way to where it can be raised as what it is."""

    kind: type[QsmnetError]
    source: str
    problem: str
    fix: str

    def throw(self) -> NoReturn:
        """Raise it."""
        raise self.kind(self.source, self.problem, self.fix)


class Told(Dataset[Item | Failure]):
    """Items of another data set, and its errors as items: a loader would change their class."""

    def __init__(self, data: Dataset[Item]) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Item | Failure:
        try:
            return self.data[index]
        except QsmnetError as error:
            return Failure(type(error), error.source, error.problem, error.fix)


def collate(items: Sequence[Item]) -> Batch:
    """Stack items and add the channel axis."""
    parts = {name: [getattr(item, name) for item in items] for name in VOLUMES}
    if any(item.magnitude is not None for item in items):
        parts["magnitude"] = [
            torch.zeros_like(item.field) if item.magnitude is None else item.magnitude
            for item in items
        ]
    return Batch(
        **{name: torch.stack(volumes)[:, None].float() for name, volumes in parts.items()},
        geometry=tuple(item.geometry for item in items),
        items=tuple(item.index for item in items),
    )


def collate_told(
    items: Sequence[Item | Failure], stack: Callable[[Sequence[Item]], Batch] = collate
) -> Batch | Failure:
    """Stack items, unless one is a failure."""
    good = [item for item in items if isinstance(item, Item)]
    failed = [item for item in items if isinstance(item, Failure)]
    return failed[0] if failed else stack(good)
