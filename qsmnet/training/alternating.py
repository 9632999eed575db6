"""Items of two kinds, one after the other."""

from dataclasses import replace

from torch.utils.data import Dataset

from qsmnet.training.batch import Item


class Alternating(Dataset[Item]):
    """Items 0, 2, 4 and so on are those of ``one``, the others those of ``other``, each in order.

    Both as often: of whole heads, which take minutes to simulate, and small objects a training in
    stages looks at the latter as much as at the former.

    Parameters
    ----------
    one, other
        Sets with a length, of which the shorter decides how long this one is.
    """

    def __init__(self, one: Dataset[Item], other: Dataset[Item]) -> None:
        self.one, self.other = one, other

    def __len__(self) -> int:
        return 2 * min(len(self.one), len(self.other))  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Item:
        item = (self.other if index % 2 else self.one)[index // 2]
        return replace(item, index=index)
