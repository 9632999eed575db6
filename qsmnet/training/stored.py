"""Training pairs of the user's own."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from qsmnet.simulate.randomness import item_generator
from qsmnet.training.batch import Item
from qsmnet.training.checks import check_counts, check_cut, check_switch
from qsmnet.training.cut import Cut
from qsmnet.training.data import ENDLESS, PairsModule, magnitude_generator
from qsmnet.training.pair_files import find_pairs, read_pair


class StoredPairs(Dataset[Item]):
    """Folders holding ``local_field``, ``mask`` and ``chi`` as NIfTI (ppm), one a pair.

    ``noise.nii.gz`` (sd in ppm) and ``field_support.nii.gz`` are used where they lie beside them,
    and ``magnitude.nii.gz`` (any unit) if it is asked for.

    Parameters
    ----------
    folder
        Holds one folder a pair.
    crop
        Shape of the random crop; all pairs must be at least as large. None keeps the whole.
    seed, length
        Which crops, and how many items.
    field_of_view
        As for `SimulatedPairs`: range of the grid over the object's bounding box, for k-space
        networks; takes the place of a crop.
    magnitude
        Whether magnitudes are read, but for a share of 0.3 of the items.

    Raises
    ------
    UnreadableError
        If the folder holds no pairs, or one lacks a file.
    InconsistentError
        By an item that is smaller than the crop.
    QsmnetError
        By an item, as `qsmnet.training.pair_files.read_pair`.
    """

    def __init__(
        self,
        folder: Path,
        crop: Sequence[int] | None = None,
        seed: int = 0,
        length: int | None = None,
        field_of_view: Sequence[float] | None = None,
        magnitude: bool = False,
    ) -> None:
        self.folders = find_pairs(Path(folder))
        self.magnitude = magnitude
        self.seed, self.cut = seed, Cut(crop, field_of_view)
        self.length = len(self.folders) if length is None else length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        rng = item_generator(self.seed, "stored", index)
        folder = self.folders[int(rng.integers(len(self.folders)))]
        shown = self.magnitude and magnitude_generator(self.seed, "stored", index) is not None
        return self.cut(read_pair(folder, index, shown), rng, folder)


def stored_pairs(
    folder: Path | str,
    validation_folder: Path | str,
    crop: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 1,
    workers: int = 0,
    validation_items: int = 4,
    field_of_view: Sequence[float] | None = None,
    magnitude: bool = False,
) -> PairsModule:
    """Pairs of the user's own; validation lies in a folder of its own.

    The settings are those of `StoredPairs` and `PairsModule`.

    Raises
    ------
    ValueError
        If a setting is out of its range, if both a crop and a field of view are given, or if pairs
        that are not cropped, which may differ in shape, are to make batches.
    UnreadableError
        If a folder holds no pairs, or one lacks a file.
    """
    check_counts(1, batch_size=batch_size, validation_items=validation_items)
    check_counts(0, workers=workers)
    check_cut(crop, field_of_view, batch_size, alike=crop is not None)
    check_switch(magnitude=magnitude)

    def items(where: Path | str, seed: int, length: int) -> StoredPairs:
        return StoredPairs(Path(where), crop, seed, length, field_of_view, magnitude)

    seen, unseen = (
        items(folder, seed, ENDLESS),
        items(validation_folder, seed + 1, validation_items),
    )
    return PairsModule(seen, unseen, batch_size, workers)
