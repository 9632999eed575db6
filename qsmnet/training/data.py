"""Training pairs, simulated on the fly from a bank of phantoms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qsmnet.simulate.bank import Bank
from qsmnet.simulate.magnitude import draw_magnitude, render_magnitude
from qsmnet.simulate.phantom import Phantom, Record
from qsmnet.simulate.randomness import item_generator
from qsmnet.simulate.scene import Scene
from qsmnet.simulate.simulator import Simulator
from qsmnet.training.alternating import Alternating
from qsmnet.training.augment import mirrored_and_scaled, turned
from qsmnet.training.batch import Batch, Failure, Item, Told, collate, collate_told
from qsmnet.training.checks import check_counts, check_cut, check_range, check_switch
from qsmnet.training.cut import Cut
from qsmnet.training.loader_process import prepare_process


class SimulatedPairs(Dataset[Item]):
    """Item i: a phantom of the bank, mirrored, scaled, measured and cropped.

    All of it is decided by (seed, split, i).

    Parameters
    ----------
    bank
        Phantoms.
    length
        Items; a training set may be longer than any run.
    crop
        Shape cut from the phantom after its field is computed, so that sources outside the crop
        count; None keeps the whole.
    scale
        Range of the factor on susceptibility, log-uniform.
    misstated
        Share of items whose noise is told wrong by a factor of up to 2.
    field_of_view
        Range of the grid over the mask's bounding box: items are cut to the box and zero-padded, as
        a k-space network does at inference. Items then differ in shape, so that the batch size must
        be 1. Takes the place of a crop.
    turns
        Whether items are turned too, with their geometry: slices lie any way.
    magnitude
        Whether items have a magnitude, but for a share of 0.3 of them; all else stays the same.
    in_turn
        Whether each phantom is taken once before any is taken again, instead of at random: for
        sets of about as many items as phantoms.

    Raises
    ------
    InconsistentError
        By an item that is smaller than the crop.
    """

    def __init__(
        self,
        bank: Bank,
        length: int,
        crop: Sequence[int] | None = None,
        scale: Sequence[float] = (0.5, 2.0),
        misstated: float = 0.1,
        field_of_view: Sequence[float] | None = None,
        turns: bool = False,
        magnitude: bool = False,
        in_turn: bool = False,
    ) -> None:
        self.bank, self.length, self.scale, self.misstated = bank, length, scale, misstated
        self.turns, self.magnitude, self.in_turn = turns, magnitude, in_turn
        self.cut = Cut(crop, field_of_view)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        rng = item_generator(self.bank.seed, f"{self.bank.split} items", index)
        # drawn in either case, so that all else of an item stays the same
        drawn = int(rng.integers(len(self.bank)))
        number = index % len(self.bank) if self.in_turn else drawn
        record = {
            **self.bank.records[number],
            **self.bank.simulator.draw_measurement(rng),
        }
        phantom = mirrored_and_scaled(self.bank.phantom(number), rng, self.scale)
        item = self._measured(phantom, record, index)
        told = float(2.0 ** rng.uniform(-1, 1)) if rng.random() < self.misstated else 1.0
        item = replace(item, noise=item.noise * told)
        # before it is cut: of a cube any axes can be exchanged
        item = turned(item, rng) if self.turns else item
        return self.cut(item, rng, "simulator.shape")

    def _measured(self, phantom: Phantom, record: Record, index: int) -> Item:
        scene = self.bank.simulator.measure([phantom], [record])[0]
        return Item(
            scene.local_field,
            scene.field_support.float(),
            scene.noise,
            scene.chi,
            scene.mask,
            scene.geometry,
            index,
            self._magnitude(scene, index) if self.magnitude else None,
        )

    def _magnitude(self, scene: Scene, index: int) -> Tensor | None:
        rng = magnitude_generator(self.bank.seed, self.bank.split, index)
        if rng is None:
            return None
        return render_magnitude(draw_magnitude(rng), scene, self.bank.simulator.corruptions)


def magnitude_generator(seed: int, split: str, index: int) -> np.random.Generator | None:
    """Return an item's stream for its magnitude, which shifts no other; None where it has none.

    A network that has always seen a magnitude would be lost without.
    """
    rng = item_generator(seed, f"{split} magnitudes", index)
    return None if rng.random() < _WITHOUT_MAGNITUDE else rng


class _InOrder(Sampler[int]):
    """Items in order, from the first that the run has not seen; of n processes each takes an n-th.

    Draws nothing, so that resuming needs the step only.
    """

    def __init__(self, length: int, position: Callable[[], tuple[int, int]] | None = None) -> None:
        self.length, self.position = length, position

    def __iter__(self) -> Iterator[int]:
        start, step = (0, 1) if self.position is None else self.position()
        if self.position is None:
            return iter(range(self.length))
        # a run longer than the set begins again
        return (i % self.length for i in count(start, step))

    def __len__(self) -> int:
        return self.length


Loader = DataLoader[Item | Failure]


class PairsModule(L.LightningDataModule):
    """Loaders over a training and a validation set; training items are seen in order, once each.

    Parameters
    ----------
    training, validation
        Data sets of items.
    batch_size
        Of both.
    workers
        Loader processes; 0 loads in the training process.
    stack
        Makes a batch of items.
    """

    #: Of each split, what its items are made of that is no code: files with their SHA-256.
    materials: Mapping[str, Sequence[Mapping[str, str]]] = MappingProxyType({})

    def __init__(
        self,
        training: Dataset[Item],
        validation: Dataset[Item],
        batch_size: int = 1,
        workers: int = 1,
        stack: Callable[[Sequence[Item]], Batch] = collate,
    ) -> None:
        super().__init__()
        self.training, self.validation = training, validation
        self.batch_size, self.workers, self.stack = batch_size, workers, stack

    def position(self) -> tuple[int, int]:
        """First item to see, and the stride, for this process at the trainer's step."""
        trainer = self.trainer
        if trainer is None:
            return 0, 1
        first = trainer.global_step * self.batch_size * trainer.world_size
        return first + trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> Loader:
        """Endless; the trainer's ``limit_train_batches`` is the length of an epoch."""
        length = len(self.training)  # type: ignore[arg-type]
        return self._loader(self.training, _InOrder(length, self.position), self.workers)

    def val_dataloader(self) -> Loader:
        """Loader of the same items every time."""
        return self._loader(self.validation, _InOrder(len(self.validation)), 0)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: Batch | Failure, device: torch.device, _: int
    ) -> Batch:
        """Lightning moves dictionaries by itself, not dataclasses with tuples of geometries.

        Raises
        ------
        QsmnetError
            That of an item.
        """
        if isinstance(batch, Failure):
            batch.throw()
        return batch.to(device)

    def _loader(self, data: Dataset[Item], sampler: Sampler[int], workers: int) -> Loader:
        return DataLoader(
            Told(data) if workers > 0 else data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=partial(collate_told, stack=self.stack),
            worker_init_fn=prepare_process,
            # else every pass would draw from the state that a checkpoint holds
            generator=torch.Generator(),
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers > 0 else None,
            # a worker that was killed is an error after this, never a hang
            timeout=600 if workers > 0 else 0,
        )


def simulated_pairs(
    training: Simulator,
    bank: Path | str,
    phantoms: int,
    validation_phantoms: int,
    seed: int,
    crop: Sequence[int] | None = None,
    field_of_view: Sequence[float] | None = None,
    scale: Sequence[float] = (0.5, 2.0),
    batch_size: int = 1,
    workers: int = 1,
    build_workers: int = 1,
    turns: bool = False,
    validation: Simulator | None = None,
    magnitude: bool = False,
    in_turn: bool = False,
    beside: Simulator | None = None,
    beside_phantoms: int = 256,
    beside_every: int = 2,
) -> PairsModule:
    """Pairs from banks of ``phantoms`` under the folder ``bank``, built at first use.

    Training and validation are different splits of the same seed, whose random streams never meet.
    ``validation`` draws the latter where it is not ``training``. The other settings are those of
    `SimulatedPairs` and `PairsModule`; ``build_workers`` processes build the banks. Where
    ``beside`` is there, every ``beside_every``-th item is one of it, of ``beside_phantoms``.

    Raises
    ------
    ValueError
        If a setting is out of its range, the crop is larger than a phantom, both a crop and a field
        of view are given, framed items, which differ in shape, are to make batches, or the folder
        holds a bank of other settings.
    """
    check_counts(1, batch_size=batch_size, build_workers=build_workers)
    check_counts(1, phantoms=phantoms, validation_phantoms=validation_phantoms)
    check_counts(1, beside_phantoms=beside_phantoms)
    check_counts(2, beside_every=beside_every)
    check_counts(0, workers=workers)
    check_range("scale", scale, 1e-3)
    check_switch(magnitude=magnitude, in_turn=in_turn)
    shapes = training.shapes(seed) | (set() if beside is None else beside.shapes(seed))
    # with a crop, shapes of several voxel sizes are no hindrance
    alike = crop is not None or len(shapes) == 1
    check_cut(crop, field_of_view, batch_size, alike and field_of_view is None)
    for shape in shapes:
        if crop is not None and any(c > n for c, n in zip(crop, shape, strict=True)):
            raise ValueError(f"data.crop {list(crop)} is larger than a phantom of {list(shape)}")

    def items(
        drawn_by: Simulator, n: int, split: str, length: int, place: str = ""
    ) -> Dataset[Item]:
        made = Bank(Path(bank) / place / split, drawn_by, n, seed, split, build_workers)
        return SimulatedPairs(
            made,
            length,
            crop,
            scale,
            field_of_view=field_of_view,
            turns=turns,
            magnitude=magnitude,
            in_turn=in_turn,
        )

    seen = items(training, phantoms, "train", ENDLESS)
    unseen = items(validation or training, validation_phantoms, "validate", validation_phantoms)
    if beside is not None:
        others = items(beside, beside_phantoms, "train", ENDLESS, "beside")
        seen = Alternating(seen, others, beside_every)
        few = validation_phantoms
        unseen = Alternating(unseen, items(beside, few, "validate", few, "beside"), beside_every)
    return PairsModule(seen, unseen, batch_size, workers)


#: Length of a set that is longer than any run.
ENDLESS = 2**31 - 1
_WITHOUT_MAGNITUDE = 0.3
