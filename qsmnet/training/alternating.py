"""Items of two kinds, in turn."""

from dataclasses import replace

from torch.utils.data import Dataset

from qsmnet.training.batch import Item


class Alternating(Dataset[Item]):
    """Every n-th item is one of ``other``, those before it are ones of ``one``, each in order.

    Parameters
    ----------
    one, other
        Sets with a length, of which the one that ends first decides how long this one is.
    every
        n, from 2: 2 takes as many of both.
    """

    def __init__(self, one: Dataset[Item], other: Dataset[Item], every: int) -> None:
        self.one, self.other, self.every = one, other, every

    def __len__(self) -> int:
        ones, others = len(self.one), len(self.other)  # type: ignore[arg-type]
        return self.every * min(ones // (self.every - 1), others)

    def __getitem__(self, index: int) -> Item:
        turn, place = divmod(index, self.every)
        last = place == self.every - 1
        item = self.other[turn] if last else self.one[turn * (self.every - 1) + place]
        return replace(item, index=index)
