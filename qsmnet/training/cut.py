"""What is kept of a training item: the framed object, a random crop, or the whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsmnet.errors import InconsistentError
from qsmnet.frame import Frame
from qsmnet.training.batch import Item


@dataclass(frozen=True)
class Cut:
    """What is kept of an item: the framed object, a random crop, or the whole.

    Parameters
    ----------
    crop
        Voxels of the random crop; None for none.
    field_of_view
        Range of the grid over the object's bounding box; takes the place of a crop.

    Raises
    ------
    InconsistentError
        By an item that is smaller than the crop.
    """

    crop: Sequence[int] | None
    field_of_view: Sequence[float] | None

    def __call__(self, item: Item, rng: np.random.Generator, source: Path | str) -> Item:
        """Cut an item of ``source``."""
        if self.field_of_view is not None:
            low, high = self.field_of_view
            return _framed(item, float(rng.uniform(low, high)))
        if self.crop is None:
            return item
        shape, crop = tuple(item.chi.shape), tuple(self.crop)
        if any(n < c for n, c in zip(shape, crop, strict=True)):
            problem = f"its grid {shape} is smaller than the crop {crop}"
            raise InconsistentError(source, problem, "make data.crop smaller")
        for _ in range(8):
            cropped = _random_crop(item, crop, rng)
            # a crop of mostly nothing teaches nothing
            if float(cropped.mask.float().mean()) > 0.3:
                break
        return cropped


def _framed(item: Item, factor: float) -> Item:
    """Cut to where anything is known and pad to ``factor`` times that."""
    return item.map(Frame.around(item.mask | (item.support > 0), factor).cut)


def _random_crop(item: Item, crop: Sequence[int], rng: np.random.Generator) -> Item:
    starts = [int(rng.integers(n - c + 1)) for n, c in zip(item.chi.shape, crop, strict=True)]
    x, y, z = (slice(s, s + c) for s, c in zip(starts, crop, strict=True))
    return item.map(lambda volume: volume[x, y, z])
