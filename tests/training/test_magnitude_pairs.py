"""Training items with a magnitude: all else as without, moved alike, missing in a share of them."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from test_data import same

from qsmnet.errors import InconsistentError, NumericalError, PhysicsError
from qsmnet.io.nifti import write_volume
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.simulate.corruptions.erosion import Erosion
from qsmnet.simulate.corruptions.signal_noise import SignalNoise
from qsmnet.simulate.write import write_scene
from qsmnet.training.batch import collate
from qsmnet.training.checks import check_switch
from qsmnet.training.deep_loss import Deep
from qsmnet.training.losses import Loss
from qsmnet.training.stored import StoredPairs

SHAPE = (12, 14, 10)
CUTS = [{}, {"crop": (6, 8, 5)}, {"field_of_view": (1.1, 1.4)}, {"turns": True}]


@pytest.fixture
def simulator(simulator):
    corruptions = {"erosion": Erosion(layers=(1, 1)), "signal_noise": SignalNoise()}
    return replace(simulator, corruptions=corruptions)


@pytest.mark.parametrize("settings", CUTS)
def test_all_else_is_as_without(pairs, settings):
    plain, seeing = pairs(**settings).training, pairs(magnitude=True, **settings).training
    for index in range(6):
        one, other = plain[index], seeing[index]
        assert same(one, other)
        assert one.geometry == other.geometry
        assert one.magnitude is None


@pytest.mark.parametrize("settings", CUTS)
def test_it_moves_with_the_mask(pairs, settings):
    data = pairs(magnitude=True, **settings).training
    items = [item for item in (data[i] for i in range(8)) if item.magnitude is not None]
    assert items
    for item in items:
        # never zero in the mask, as noise has it
        assert torch.equal(item.magnitude > 0, item.mask)


def test_it_depends_on_the_number_alone_and_lacks_in_a_share(pairs):
    one, other = (pairs(magnitude=True).training for _ in range(2))
    without = 0
    for index in range(40):
        item = one[index]
        without += item.magnitude is None
        if index < 6 and item.magnitude is not None:
            assert torch.equal(item.magnitude, other[index].magnitude)
    assert 0.1 < without / 40 < 0.5


@pytest.mark.parametrize("value", [None, "yes", 1])
def test_what_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(ValueError, match=r"data\.magnitude must be true or false"):
        check_switch(magnitude=value)


class TestBatch:
    @pytest.fixture
    def items(self, pairs):
        data = pairs(magnitude=True).training
        found = [data[i] for i in range(12)]
        seen = next(item for item in found if item.magnitude is not None)
        return seen, replace(next(i for i in found if i.index != seen.index), magnitude=None)

    def test_what_lacks_is_zero(self, items):
        batch = collate(items)
        assert torch.equal(batch.magnitude[0, 0], items[0].magnitude)
        assert not batch.magnitude[1].any()
        assert batch.to(torch.device("cpu")).magnitude.shape == batch.field.shape
        assert collate(items[1:]).magnitude is None

    def test_only_a_network_that_wants_it_is_given_it(self, items):
        batch = collate(items)
        small = {"iterations": 1, "base": 2, "levels": 1, "convolutions": 1, "start": "tkd"}
        seeing, blind = Unrolled(**small, magnitude=True), Unrolled(**small)
        assert batch.inputs(seeing)[5] is batch.magnitude
        assert all(len(batch.inputs(network)) == 5 for network in (blind, UNet((4,))))

    def test_losses_hand_it_on(self, items):
        torch.manual_seed(0)
        network = Unrolled(iterations=1, base=2, levels=1, start="tkd", magnitude=True)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        batch = collate(items)
        for loss in (Loss(), Deep(Loss())):
            both = (batch, replace(batch, magnitude=None))
            # items apart, and the second has none in either
            found, without = (loss.predict(network, b).detach().unbind(-5) for b in both)
            assert not torch.equal(found[0], without[0])
            assert torch.allclose(found[1], without[1], rtol=0, atol=1e-6)


class TestStored:
    @pytest.fixture
    def folder(self, simulator, tmp_path):
        folder = tmp_path / "own"
        write_scene(folder / "p0", simulator.scene(1, 0))
        return folder

    @staticmethod
    def store(folder, value=None):
        """A magnitude of one value, or of as many as there are voxels."""
        affine = nib.load(folder / "p0" / "mask.nii.gz").affine
        values = np.arange(1, 1 + np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
        values = values if value is None else np.full_like(values, value)
        nib.save(nib.Nifti1Image(values, affine), folder / "p0" / "magnitude.nii.gz")
        return torch.from_numpy(values)

    def items(self, folder, n=8, **settings):
        data = StoredPairs(folder, seed=2, length=n, **settings)
        return [data[i] for i in range(n)]

    def test_it_is_read_where_it_lies_and_is_asked_for(self, folder):
        assert all(item.magnitude is None for item in self.items(folder, magnitude=True))
        stored = self.store(folder)
        assert all(item.magnitude is None for item in self.items(folder))
        items = self.items(folder, magnitude=True)
        found = [item for item in items if item.magnitude is not None]
        assert 0 < len(found) < len(items)
        for item in found:
            assert torch.equal(item.magnitude[item.mask], stored[item.mask])

    def test_all_else_is_as_without(self, folder):
        self.store(folder)
        for settings in ({"crop": (6, 7, 8)}, {"field_of_view": (1.1, 1.4)}):
            plain, seeing = (self.items(folder, magnitude=m, **settings) for m in (False, True))
            assert all(same(*both) for both in zip(plain, seeing, strict=True))
            shapes = [(i.magnitude.shape, i.chi.shape) for i in seeing if i.magnitude is not None]
            assert shapes
            assert all(one == other for one, other in shapes)

    @pytest.mark.parametrize(
        ("value", "error", "words"),
        [(-1.0, PhysicsError, "not negative"), (np.nan, NumericalError, "NaN or infinite")],
    )
    def test_what_is_no_magnitude_names_the_file(self, folder, value, error, words):
        self.store(folder, value)
        with pytest.raises(error, match=rf"magnitude\.nii\.gz: .*{words}"):
            self.items(folder, magnitude=True)
        self.items(folder)

    def test_another_grid_names_the_file(self, folder):
        write_volume(folder / "p0" / "magnitude.nii.gz", np.ones((9, 9, 9), np.float32), np.eye(4))
        with pytest.raises(InconsistentError, match=r"magnitude\.nii\.gz"):
            self.items(folder, magnitude=True)
