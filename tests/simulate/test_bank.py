"""Phantoms on disk: built once, resumed, never mixed."""

import errno
import json

import numpy as np
import pytest
import torch

from qsmnet.errors import OutputError, ResourceError
from qsmnet.simulate.bank import Bank
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.simulator import Simulator

SIMULATOR = Simulator({"brain": Brain()}, shape=(16, 18, 14))


def bank(folder, n=3, seed=1, split="train", workers=1, simulator=SIMULATOR):
    return Bank(folder, simulator, n, seed, split, workers)


def test_phantoms_are_those_of_the_simulator(tmp_path):
    built = bank(tmp_path)
    assert len(built) == 3
    for i in range(3):
        expected, found = SIMULATOR.phantom(SIMULATOR.draw(1, "train", i)), built.phantom(i)
        assert torch.equal(found.mask, expected.mask)
        assert torch.equal(found.segmentation, expected.segmentation * expected.mask)
        # half precision: a relative 2^-11
        assert torch.allclose(found.chi, expected.chi, rtol=1e-3, atol=1e-6)


def test_building_goes_on_where_it_stopped(tmp_path):
    bank(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    content = (tmp_path / "00001.npz").read_bytes()
    (tmp_path / "00001.npz").unlink()
    bank(tmp_path)
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    assert {name for name in before if before[name] != after[name]} == {"00001.npz"}
    assert (tmp_path / "00001.npz").read_bytes() == content
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 4},
        {"seed": 2},
        {"split": "validate"},
        {"simulator": Simulator({"brain": Brain(erosion=1)}, shape=(16, 18, 14))},
    ],
    ids=["n", "seed", "split", "simulator"],
)
def test_a_bank_of_other_settings_is_refused(tmp_path, change):
    bank(tmp_path)
    with pytest.raises(ValueError, match="bank of other settings"):
        bank(tmp_path, **change)


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("module", "name"), [(np, "savez"), (json, "dumps")])
def test_a_full_disk_leaves_no_part(tmp_path, monkeypatch, module, name):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        with pytest.raises(ResourceError, match="no space left"):
            bank(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"bank.json"}
    assert len(bank(tmp_path)) == 3


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        bank(tmp_path / "file" / "bank")


def test_what_cannot_be_drawn_leaves_no_folder(tmp_path):
    impossible = Simulator({"brain": Brain(margin=(0.0, 0.0))}, shape=(16, 18, 14))
    with pytest.raises(ZeroDivisionError):
        bank(tmp_path / "bank", simulator=impossible)
    assert not list(tmp_path.iterdir())


def test_settings_are_written(tmp_path):
    bank(tmp_path)
    settings = json.loads((tmp_path / "bank.json").read_text())
    assert settings == {"simulator": repr(SIMULATOR), "n": 3, "seed": 1, "split": "train"}


@pytest.mark.gpu
def test_phantoms_are_on_the_device_of_the_simulator(tmp_path):
    settings = {"shape": (16, 18, 14), "device": "cuda"}
    simulator = Simulator({"brain": Brain()}, **settings)
    built = bank(tmp_path, n=1, simulator=simulator)
    scene = simulator.measure([built.phantom(0)], built.records)[0]
    expected = SIMULATOR.phantom(SIMULATOR.draw(1, "train", 0))
    assert scene.local_field.device.type == "cuda"
    assert torch.allclose(scene.chi.cpu(), expected.chi, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_processes_build_the_same_bank(tmp_path):
    bank(tmp_path / "one")
    bank(tmp_path / "two", workers=2)
    for path in (tmp_path / "one").glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
