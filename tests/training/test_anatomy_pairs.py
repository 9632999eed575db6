"""Pairs from label maps: the same whatever loads them, of the maps that are asked for."""

import json
from dataclasses import replace

import pytest
import torch
from small_maps import write_map, write_maps

from qsmnet.cli.compose import compose
from qsmnet.dipole import Dipole
from qsmnet.errors import UnreadableError
from qsmnet.simulate.overlays import Vessels
from qsmnet.simulate.simulator import Simulator
from qsmnet.training.anatomy import anatomy_pairs

VOLUMES = ("field", "support", "noise", "chi", "mask")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def simulator():
    mixture = compose("simulator", "anatomy_mixture")
    heads = replace(mixture.sources["anatomy"], maps=None, vessels=Vessels(count=(0, 4)))
    acquisition = replace(mixture.acquisition, voxel_sizes=2)
    sources = {**mixture.sources, "anatomy": heads}
    return replace(mixture, sources=sources, acquisition=acquisition, shape=(20, 20, 20))


@pytest.fixture(scope="module")
def pairs(simulator, folder, tmp_path_factory):
    bank = tmp_path_factory.mktemp("bank")

    def make(**settings):
        defaults = {"phantoms": 6, "validation_phantoms": 2, "seed": 1, "workers": 0, "turns": True}
        maps = {"maps": [1], "validation_maps": [2]}
        return anatomy_pairs(simulator, folder, **{"bank": bank, **defaults, **maps, **settings})

    return make


def same(one, other):
    equal = all(torch.equal(getattr(one, v), getattr(other, v)) for v in VOLUMES)
    return equal and one.geometry == other.geometry


def test_an_item_depends_on_its_number_alone(pairs):
    one, other = pairs().training, pairs().training
    for index in (5, 0, 3):
        assert same(one[index], other[index])


def test_every_visit_of_a_phantom_differs(pairs):
    data = pairs(phantoms=1, bank=pairs().training.bank.folder.parent / "one").training
    items = [data[i] for i in range(12)]
    assert len({item.geometry.b0_dir for item in items}) > 8
    assert len({float(item.chi.abs().max()) for item in items}) > 8
    known_outside = [bool((item.support * ~item.mask).any()) for item in items]
    assert any(known_outside)
    assert not all(known_outside)


def test_items_are_zero_where_nothing_is_known(pairs):
    data = pairs().training
    for item in (data[i] for i in range(10)):
        assert not item.field[item.support == 0].any()
        assert not item.chi[~item.mask].any()
        assert torch.isfinite(item.field).all()
        assert bool(item.mask.any())


def test_fields_are_those_of_the_dipole(simulator, folder, tmp_path):
    """Without corruptions, of any phantom and however turned."""
    exact = replace(simulator.acquisition, noise_free=1.0, unmasked=0.0, voids=0.0)
    clean = replace(simulator, corruptions={}, acquisition=exact)
    settings = {"phantoms": 4, "validation_phantoms": 1, "seed": 1, "workers": 0, "turns": True}
    data = anatomy_pairs(clean, folder, bank=tmp_path, **settings).training
    for item in (data[i] for i in range(8)):
        shape = tuple(item.chi.shape)
        expected = Dipole(shape, item.geometry, "prism", 2.0).forward(item.chi) * item.support
        assert float((item.field - expected).abs().max()) < 1e-5 * float(item.chi.abs().max())


def test_a_worker_makes_the_same_items(pairs):
    """But for rounding: a worker has one thread, and background removals iterate."""

    def batches(data):
        loader = iter(data.train_dataloader())
        return [next(loader) for _ in range(3)]

    for one, other in zip(batches(pairs()), batches(pairs(workers=1)), strict=True):
        assert one.geometry == other.geometry
        for name in VOLUMES:
            a, b = (getattr(batch, name).float() for batch in (one, other))
            assert float((a - b).abs().max()) <= 5e-3 * float(a.abs().max())


def test_validation_has_maps_of_its_own(pairs):
    module = pairs()
    files = {
        name: {each["file"] for each in materials} for name, materials in module.materials.items()
    }
    assert files == {"training": {"head_01.nii.gz"}, "validation": {"head_02.nii.gz"}}
    folder = module.validation.bank.folder
    told = json.loads((folder / "bank.json").read_text())["materials"]
    assert [each["file"] for each in told] == ["head_02.nii.gz"]
    drawn = [r["phantom"].get("file") for r in module.validation.bank.records]
    assert set(drawn) <= {"head_02.nii.gz", None}


def test_a_bank_of_other_maps_is_refused(simulator, tmp_path):
    maps, bank = tmp_path / "maps", tmp_path / "bank"
    maps.mkdir()
    write_maps(maps, (1,))
    settings = {"phantoms": 1, "validation_phantoms": 1, "seed": 1, "workers": 0}
    anatomy_pairs(simulator, maps, bank=bank, **settings)
    write_map(maps / "head_01.nii.gz", grey=9)
    with pytest.raises(ValueError, match="bank of other settings"):
        anatomy_pairs(simulator, maps, bank=bank, **settings)


def test_a_folder_without_maps_writes_nothing(simulator, tmp_path):
    with pytest.raises(UnreadableError, match="no NIfTI file"):
        anatomy_pairs(simulator, tmp_path / "none", bank=tmp_path / "bank", phantoms=1)
    assert not (tmp_path / "bank").exists()


def test_labels_are_for_a_simulator_of_maps(simulator, tmp_path):
    others = {k: v for k, v in simulator.sources.items() if k != "anatomy"}
    plain = Simulator(others)
    with pytest.raises(ValueError, match="write simulator=anatomy_mixture"):
        anatomy_pairs(plain, tmp_path)
