"""Training items: decided by their number alone; cut, framed, told, or read from disk."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from qsmnet.errors import InconsistentError, NumericalError, PhysicsError, UnreadableError
from qsmnet.frame import Frame
from qsmnet.geometry import Geometry
from qsmnet.io.nifti import read_volume, write_volume
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.simulate.acquisition import Acquisition, local_fields
from qsmnet.simulate.bank import Bank
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.simulator import Simulator
from qsmnet.simulate.write import write_scene
from qsmnet.training.batch import Failure, Item, collate
from qsmnet.training.data import (
    PairsModule,
    SimulatedPairs,
    simulated_pairs,
)
from qsmnet.training.stored import StoredPairs, stored_pairs

SHAPE = (12, 14, 10)
VOLUMES = ("field", "support", "noise", "chi", "mask")


def same(one, other):
    return all(torch.equal(getattr(one, v), getattr(other, v)) for v in VOLUMES)


def first_batches(data, n):
    loader = iter(data.train_dataloader())
    return [next(loader) for _ in range(n)]


def test_item_depends_on_its_number_alone(pairs):
    one, other = pairs().training, pairs().training
    for index in (3, 0, 7):
        assert same(one[index], other[index])
    assert not torch.equal(one[0].field, one[1].field)


def test_seeds_and_splits_differ(pairs, simulator, tmp_path):
    training, validation = pairs().training, pairs().validation
    assert not torch.equal(training[0].field, validation[0].field)
    other = SimulatedPairs(Bank(tmp_path / "other", simulator, 3, 2, "train"), 10)
    assert not torch.equal(training[0].field, other[0].field)


def test_phantoms_come_in_turn_if_asked(simulator, tmp_path, monkeypatch):
    bank = Bank(tmp_path / "bank", simulator, 3, 2, "train")
    taken, phantom = [], bank.phantom
    monkeypatch.setattr(bank, "phantom", lambda number: taken.append(number) or phantom(number))
    in_turn, at_random = SimulatedPairs(bank, 10, in_turn=True), SimulatedPairs(bank, 10)
    items = [in_turn[i] for i in range(6)]
    assert taken == [0, 1, 2, 0, 1, 2]
    assert not same(items[0], items[3])  # measured anew
    taken.clear()
    _ = [at_random[i] for i in range(6)]
    assert taken != [0, 1, 2, 0, 1, 2]
    assert set(taken) <= {0, 1, 2}


def test_items_of_two_simulators_alternate(pairs, simulator):
    small = replace(simulator, shape=(8, 10, 12))
    alone, both = pairs(), pairs(beside=small, beside_phantoms=2)
    of_small = [both.training[index] for index in (1, 3, 5)]
    assert all(same(both.training[2 * i], alone.training[i]) for i in range(3))
    assert [item.field.shape for item in of_small] == [small.shape] * 3
    assert not same(of_small[0], of_small[1])
    assert [both.training[i].index for i in range(4)] == [0, 1, 2, 3]
    assert [both.validation[i].field.shape for i in range(4)] == [SHAPE, small.shape] * 2
    with pytest.raises(ValueError, match="batch_size=1"):
        pairs(beside=small, batch_size=2)
    rarer = pairs(beside=small, beside_phantoms=2, beside_every=3)
    kinds = [rarer.training[i].field.shape for i in range(6)]
    assert kinds == [SHAPE, SHAPE, small.shape] * 2
    assert same(rarer.training[3], alone.training[2])
    assert same(rarer.training[5], both.training[3])
    assert len(rarer.validation) == 3


def test_items_do_not_depend_on_the_batch_size(pairs):
    singles = first_batches(pairs(), 4)
    doubles = first_batches(pairs(batch_size=2), 2)
    assert [b.items for b in singles] == [(0,), (1,), (2,), (3,)]
    assert [b.items for b in doubles] == [(0, 1), (2, 3)]
    for i, batch in enumerate(doubles):
        for name in VOLUMES:
            parts = [getattr(b, name) for b in singles[2 * i : 2 * i + 2]]
            assert torch.equal(getattr(batch, name), torch.cat(parts))
    assert [b.items for b in pairs().val_dataloader()] == [(0,), (1,)]


@pytest.mark.slow
def test_items_do_not_depend_on_the_workers(pairs):
    alone, together = first_batches(pairs(), 5), first_batches(pairs(workers=2), 5)
    assert all(same(*both) for both in zip(alone, together, strict=True))


class Large(Dataset):
    """Items that are made at once and take a while to send."""

    def __len__(self):
        return 10**6

    def __getitem__(self, index):
        volume = torch.zeros(96, 96, 96)
        return Item(*[volume.clone() for _ in range(5)], Geometry((1, 1, 1), (0, 0, 1)), index)


@pytest.mark.slow
def test_workers_end_in_peace_with_items_on_their_way():
    for _ in range(4):
        loader = iter(PairsModule(Large(), Large(), workers=2).train_dataloader())
        next(loader)
        workers = loader._workers
        loader._shutdown_workers()
        assert [worker.exitcode for worker in workers] == [0, 0]


# a loader's process, whose thread fails as it hands an item over
HANDED_OVER = """
from multiprocessing import resource_sharer
from qsmnet.training.loader_process import prepare_process

def send(connection, process):
    raise {error}("in the midst of it")

prepare_process(0)
identifier = resource_sharer._resource_sharer.register(send, lambda: None)
with resource_sharer._resource_sharer.get_connection(identifier):
    resource_sharer.stop(timeout=30)
"""


@pytest.mark.parametrize(("error", "heard"), [("BrokenPipeError", False), ("ValueError", True)])
def test_an_item_that_nobody_took_is_no_news(error, heard):
    ended = subprocess.run(
        [sys.executable, "-c", HANDED_OVER.format(error=error)],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert ("in the midst of it" in ended.stderr) == heard
    assert heard or not ended.stderr


def test_loaders_leave_the_random_state_alone(pairs):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    data = pairs()
    first_batches(data, 2)
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_process_begins_where_it_stopped(pairs):
    data = pairs(batch_size=2)
    # 5 steps of two items in each of two processes are over; this is the second process
    data.trainer = SimpleNamespace(global_step=5, world_size=2, global_rank=1)
    assert [b.items for b in first_batches(data, 2)] == [(21, 23), (25, 27)]


def test_item_is_a_pair(simulator, tmp_path):
    quiet = Simulator(
        simulator.sources,
        acquisition=Acquisition(voxel_size=(1.0, 1.2, 1.5), noise_free=1.0, unmasked=0.0),
        shape=simulator.shape,
    )
    data = SimulatedPairs(Bank(tmp_path, quiet, 2, 1, "train"), 10)
    for index in range(4):
        item = data[index]
        exact = local_fields(item.chi[None], item.mask[None], [item.geometry])[0]
        assert torch.allclose(item.field, exact * item.mask, atol=1e-6)
        assert not item.noise.any()
        assert torch.equal(item.support, item.mask)
        assert item.index == index


def test_susceptibility_is_scaled_and_mirrored(pairs):
    data = pairs(phantoms=1, scale=(0.5, 2.0)).training
    stored = data.bank.phantom(0).chi
    factors, mirrored = [], 0
    for index in range(12):
        chi = data[index].chi
        factors.append(float(chi.abs().max() / stored.abs().max()))
        mirrored += not torch.allclose(chi, stored * factors[-1], atol=1e-4)
        assert float(chi.abs().sum()) == pytest.approx(
            factors[-1] * float(stored.abs().sum()), rel=1e-3
        )
    assert 0.5 <= min(factors) < 0.9
    assert 1.2 < max(factors) <= 2.0
    assert 6 <= mirrored <= 12


def test_noise_is_sometimes_told_wrong(simulator, tmp_path):
    noisy = Simulator(
        simulator.sources,
        acquisition=Acquisition(
            noise=(0.004, 0.004), noise_free=0.0, strongly_noisy=0.0, voids=0.0
        ),
        shape=simulator.shape,
    )
    bank = Bank(tmp_path, noisy, 2, 1, "train")
    right = SimulatedPairs(bank, 100, misstated=0.0)
    wrong = SimulatedPairs(bank, 100, misstated=1.0)
    for index in range(6):
        one, other = right[index], wrong[index]
        assert torch.equal(one.field, other.field)
        factor = float((other.noise / one.noise).mean())
        assert 0.5 <= factor <= 2
        assert factor != pytest.approx(1, abs=1e-3)


def test_crop_is_cut_after_the_field(simulator, tmp_path):
    bank = Bank(tmp_path, simulator, 2, 1, "train")
    whole, part = SimulatedPairs(bank, 10), SimulatedPairs(bank, 10, crop=(6, 8, 5))
    for index in range(4):
        item, crop = whole[index], part[index]
        assert crop.field.shape == (6, 8, 5)
        # found again somewhere in the whole item
        windows = item.field.unfold(0, 6, 1).unfold(1, 8, 1).unfold(2, 5, 1)
        equal = torch.isclose(windows, crop.field).all(-1).all(-1).all(-1)
        assert equal.any()


def test_frame_is_the_box_in_proportion(tmp_path):
    brains = Simulator({"brain": Brain()}, shape=(16, 20, 16))
    data = SimulatedPairs(Bank(tmp_path, brains, 2, 1, "train"), 10, field_of_view=(1.1, 1.4))
    for index in range(4):
        item = data[index]
        assert all(n % 2 == 0 for n in item.field.shape)
        box = Frame.around(item.mask | (item.support > 0), 1.0).box
        for size, part in zip(item.field.shape, box, strict=True):
            extent = part.stop - part.start
            # rounded up to even, fast sizes
            assert 1.1 * extent - 1 <= size <= 1.4 * 1.25 * extent + 2


def test_frames_of_several_shapes_make_no_batch(pairs):
    with pytest.raises(ValueError, match=r"data\.batch_size=1"):
        pairs(field_of_view=(1.1, 1.4), batch_size=2)


def test_crop_and_frame_exclude_each_other(pairs, tmp_path):
    with pytest.raises(ValueError, match=r"data\.crop=null"):
        pairs(field_of_view=(1.1, 1.4), crop=(6, 6, 6))
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crop": (6, 99, 6)}, "larger than a phantom"),
        ({"crop": (6, 6)}, "three whole numbers"),
        ({"crop": (6, 6, 0)}, "three whole numbers"),
        ({"field_of_view": (0.5, 2.0)}, "field_of_view"),
        ({"scale": (2.0, 0.5)}, "scale"),
        ({"batch_size": 0}, "batch_size"),
        ({"phantoms": 0}, "phantoms"),
        ({"validation_phantoms": 0}, "validation_phantoms"),
        ({"workers": -1}, "workers"),
        ({"build_workers": 0}, "build_workers"),
    ],
)
def test_wrong_settings_are_refused_before_a_bank_is_built(pairs, tmp_path, settings, words):
    with pytest.raises(ValueError, match=rf"data\.{words}|{words}"):
        pairs(**settings)
    assert not (tmp_path / "bank").exists()


def test_crop_is_compared_with_the_smallest_of_several_shapes(pairs, simulator, tmp_path):
    acquisition = Acquisition(voxel_sizes=8, isotropic=0.5)
    several = replace(simulator, acquisition=acquisition, same_extent=True)
    smallest = min(shape[2] for shape in several.shapes(1))
    settings = {"phantoms": 2, "validation_phantoms": 1, "seed": 1, "workers": 0}
    bank = tmp_path / "several"
    with pytest.raises(ValueError, match="larger than a phantom"):
        simulated_pairs(several, bank, **settings, crop=(8, 8, smallest + 1))
    with pytest.raises(ValueError, match="differ in shape"):
        simulated_pairs(several, bank, **settings, batch_size=2)
    data = simulated_pairs(several, bank, **settings, crop=(8, 8, smallest)).training
    assert {data[i].field.shape for i in range(8)} == {(8, 8, smallest)}


def test_signal_voids_are_unknown_to_networks_that_do_not_weigh_them(pairs):
    batch = collate([pairs().training[i] for i in range(2)])
    noise = batch.noise.clone()
    # beyond five times the median of the second item alone
    noise[:, 0, 5, 5, 5] = 6 * noise[1][batch.mask[1] > 0].median()
    noise[0] *= 1000
    noise[0, 0, 5, 5, 5] = noise[0].median()
    batch = replace(batch, noise=noise, support=torch.ones_like(noise), field=noise + 1)
    field, support = batch.inputs(UNet((4,)))[:2]
    assert support[0].all()
    assert support[1].sum() == support[1].numel() - 1
    assert not support[1, 0, 5, 5, 5]
    assert torch.equal(field, batch.field * support)
    weighing = Unrolled(iterations=1, base=4, levels=2)
    assert torch.equal(batch.inputs(weighing)[1], batch.support)
    assert not Unrolled(iterations=1, base=4, levels=2, start="tkd").weighs_noise


def test_batch_stacks_with_a_channel_axis(pairs):
    items = [pairs().training[i] for i in range(2)]
    batch = collate(items)
    for name in VOLUMES:
        volume = getattr(batch, name)
        assert volume.shape == (2, 1, *items[0].field.shape)
        assert volume.dtype == torch.float32
    assert batch.geometry == (items[0].geometry, items[1].geometry)
    assert same(batch.to(torch.device("cpu")), batch)


class TestStored:
    @pytest.fixture
    def folder(self, simulator, tmp_path):
        for i in range(3):
            write_scene(tmp_path / "own" / f"p{i}", simulator.scene(1, i))
        return tmp_path / "own"

    def test_pairs_of_qsmnet_simulate_are_read(self, folder, simulator):
        data = StoredPairs(folder, simulator.shape, seed=4)
        assert len(data) == 3
        scenes = [simulator.scene(1, i) for i in range(3)]
        for index in range(3):
            item = data[index]
            (scene,) = [s for s in scenes if torch.equal(s.chi, item.chi)]
            assert torch.equal(item.field, scene.local_field)
            assert torch.equal(item.support, scene.field_support.float())
            assert torch.equal(item.noise, scene.noise)
            assert torch.equal(item.mask, scene.mask)
            assert item.geometry.voxel_size == pytest.approx(scene.geometry.voxel_size)

    def test_crops_are_seeded(self, folder):
        one, other = StoredPairs(folder, (6, 7, 8), 1), StoredPairs(folder, (6, 7, 8), 1)
        assert one[2].field.shape == (6, 7, 8)
        assert same(one[2], other[2])
        assert not same(one[0], StoredPairs(folder, (6, 7, 8), 2)[0])

    def test_noise_is_optional(self, folder, simulator):
        for path in folder.glob("*/noise.nii.gz"):
            path.unlink()
        assert not StoredPairs(folder, simulator.shape)[0].noise.any()

    def test_field_support_is_used(self, folder, simulator):
        for path in folder.iterdir():
            half = np.zeros(simulator.shape, np.float32)
            half[:6] = 1
            affine = read_volume(path / "mask.nii.gz").affine
            write_volume(path / "field_support.nii.gz", half, affine)
        item = StoredPairs(folder, simulator.shape)[0]
        assert item.support[:6].all()
        assert not item.field[6:].any()

    def test_module_draws_crops_of_both(self, folder):
        data = stored_pairs(folder, folder, (6, 6, 6), seed=1, validation_items=2)
        assert len(data.validation) == 2
        batch = next(iter(data.train_dataloader()))
        assert batch.field.shape == (1, 1, 6, 6, 6)

    def test_whole_pairs_are_kept_without_a_crop(self, folder, simulator):
        data = stored_pairs(folder, folder)
        assert all(data.training[i].chi.shape == simulator.shape for i in range(4))

    def test_frame_is_the_box_in_proportion(self, folder):
        data = stored_pairs(folder, folder, field_of_view=(1.1, 1.4))
        plain = StoredPairs(folder, None, seed=0)
        shapes = set()
        for index in range(8):
            item, whole = data.training[index], plain[index]
            box = Frame.around(whole.mask | (whole.support > 0), 1.0).box
            for size, part in zip(item.field.shape, box, strict=True):
                extent = part.stop - part.start
                assert 1.1 * extent - 1 <= size <= 1.4 * 1.25 * extent + 2
            # nothing of the object is lost
            assert float(item.chi.abs().sum()) == pytest.approx(float(whole.chi.abs().sum()))
            shapes.add(tuple(item.field.shape))
        assert len(shapes) > 1

    def test_frames_are_seeded(self, folder):
        one, other = (
            stored_pairs(folder, folder, seed=3, field_of_view=(1.1, 1.4)) for _ in range(2)
        )
        assert same(one.training[2], other.training[2])
        assert same(one.validation[1], other.validation[1])

    @pytest.mark.parametrize("settings", [{}, {"field_of_view": (1.1, 1.4)}])
    def test_pairs_of_several_shapes_make_no_batch(self, folder, settings):
        with pytest.raises(ValueError, match=r"data\.batch_size=1"):
            stored_pairs(folder, folder, batch_size=2, **settings)

    def test_crop_and_frame_exclude_each_other(self, folder):
        with pytest.raises(ValueError, match=r"data\.crop=null"):
            stored_pairs(folder, folder, (6, 6, 6), field_of_view=(1.1, 1.4))

    def test_empty_mask_is_named(self, folder, simulator):
        for path in folder.iterdir():
            affine = read_volume(path / "mask.nii.gz").affine
            nothing = np.zeros(simulator.shape, np.float32)
            write_volume(path / "mask.nii.gz", nothing, affine, overwrite=True)
        with pytest.raises(InconsistentError, match=r"mask\.nii\.gz: mask is empty"):
            StoredPairs(folder)[0]

    def test_crop_larger_than_a_pair_names_the_pair(self, folder):
        with pytest.raises(InconsistentError, match=r"smaller than the crop"):
            StoredPairs(folder, (6, 99, 6))[0]

    def test_what_is_missing_is_named(self, folder, tmp_path):
        with pytest.raises(UnreadableError, match="holds no folders"):
            StoredPairs(tmp_path / "nowhere", (6, 6, 6))
        for path in folder.glob("*/mask.nii.gz"):
            path.unlink()
        with pytest.raises(UnreadableError, match=r"lacks mask\.nii\.gz"):
            StoredPairs(folder, (6, 6, 6))

    @staticmethod
    def spoil(folder, name, where, value=np.nan):
        """Write ``value`` into each pair's ``name`` where ``where`` of its mask is true."""
        for path in folder.iterdir():
            image = nib.load(path / f"{name}.nii.gz")
            data = image.get_fdata(dtype=np.float32)
            data[where(nib.load(path / "mask.nii.gz").get_fdata() > 0)] = value
            nib.save(nib.Nifti1Image(data, image.affine, image.header), path / f"{name}.nii.gz")

    @pytest.mark.parametrize("name", ["local_field", "chi", "noise"])
    def test_nan_where_nothing_is_known_is_zero(self, folder, name):
        plain = [StoredPairs(folder, seed=4)[i] for i in range(3)]
        self.spoil(folder, name, np.logical_not)
        for index, expected in enumerate(plain):
            item = StoredPairs(folder, seed=4)[index]
            assert all(getattr(item, volume).isfinite().all() for volume in VOLUMES)
            inside = item.mask
            for volume in VOLUMES:
                assert torch.equal(getattr(item, volume)[inside], getattr(expected, volume)[inside])

    @pytest.mark.parametrize("name", ["local_field", "chi", "noise"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_inside_names_the_file(self, folder, name, value):
        self.spoil(folder, name, lambda mask: mask, value)
        with pytest.raises(NumericalError, match=rf"{name}\.nii\.gz: .* NaN or infinite"):
            StoredPairs(folder)[0]

    def test_negative_noise_names_the_file(self, folder):
        self.spoil(folder, "noise", lambda mask: mask, -1.0)
        with pytest.raises(PhysicsError, match=r"noise\.nii\.gz"):
            StoredPairs(folder)[0]

    @pytest.mark.parametrize("value", [np.nan, 2.0, -1.0])
    def test_a_support_that_is_none_names_the_file(self, folder, simulator, value):
        for path in folder.iterdir():
            affine = read_volume(path / "mask.nii.gz").affine
            support = np.full(simulator.shape, value, np.float32)
            nib.save(nib.Nifti1Image(support, affine), path / "field_support.nii.gz")
        with pytest.raises(InconsistentError, match=r"field_support\.nii\.gz"):
            StoredPairs(folder)[0]

    @pytest.mark.parametrize("name", ["noise", "field_support", "local_field", "mask"])
    def test_another_grid_names_the_file(self, folder, name):
        for path in folder.iterdir():
            file = path / f"{name}.nii.gz"
            file.unlink(missing_ok=True)
            write_volume(file, np.ones((9, 9, 9), np.float32), np.eye(4))
        with pytest.raises(InconsistentError, match=rf"{name}\.nii\.gz"):
            StoredPairs(folder)[0]

    def test_wrong_counts_are_refused(self, folder):
        for setting in ({"batch_size": 0}, {"validation_items": 0}, {"workers": -1}):
            with pytest.raises(ValueError, match=next(iter(setting))):
                stored_pairs(folder, folder, **setting)

    @pytest.mark.slow
    def test_an_error_in_a_loader_s_process_is_the_same_error(self, folder):
        self.spoil(folder, "chi", lambda mask: mask)
        data = stored_pairs(folder, folder, workers=1)
        batch = next(iter(data.train_dataloader()))
        assert isinstance(batch, Failure)
        with pytest.raises(NumericalError, match=r"chi\.nii\.gz: .* NaN"):
            data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
