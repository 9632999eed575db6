"""Weights on disk: verified on every load, and nothing foreign is ever run."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from qsmnet.errors import OutputError, UnreadableError, WeightsError
from qsmnet.networks.unet import UNet
from qsmnet.weights import store
from qsmnet.weights.store import build_network, load_weights, released_names, save_weights

UNET = {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 6]}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "own.safetensors"
    save_weights(path, UNet((4, 6)).state_dict(), {"network": UNET})
    return path


def edit_card(weights, **changes):
    path = weights.with_suffix(".json")
    card = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


def refused(path):
    with pytest.raises(WeightsError) as error:
        load_weights(path)
    assert error.value.exit_code == 6
    assert error.value.fix
    return str(error.value)


def test_weights_come_back(weights):
    network, card = load_weights(weights)
    assert isinstance(network, UNet)
    assert not network.training
    torch.manual_seed(0)
    expected = UNet((4, 6)).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())
    assert card["network"] == UNET
    assert len(card["sha256"]) == 64


@pytest.mark.parametrize("position", [0.0, 0.5, 0.999])
def test_one_flipped_bit_is_found(weights, position):
    content = bytearray(weights.read_bytes())
    content[int(position * len(content))] ^= 1
    weights.write_bytes(content)
    assert "damaged" in refused(weights)


def test_truncated_file_is_found(weights):
    weights.write_bytes(weights.read_bytes()[:-7])
    assert "damaged" in refused(weights)


def test_missing_file_card_and_name(weights, tmp_path):
    assert "file not found" in refused(tmp_path / "other.safetensors")
    assert "no such released weights" in refused("resnet")
    weights.with_suffix(".json").unlink()
    assert "card is missing" in refused(weights)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[1]", "lacks sha256"),
        ('"text"', "lacks sha256"),
        ("{}", "lacks sha256"),
        ('{"sha256": "0"}', "lacks sha256"),
    ],
)
def test_broken_card(weights, text, problem):
    weights.with_suffix(".json").write_text(text, encoding="latin-1")
    assert problem in refused(weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "qsmnet.networks.unet.UNet"},
        {"network": []},
        {"sha256": 3},
        {"trained_for": "all"},
        {"trained_for": {"voxel_size_mm": None}},
        {"trained_for": {"voxel_size_mm": [1.0, "2"]}},
        {"trained_for": {"voxel_size_mm": [1.0, float("nan")]}},
        {"trained_for": {"tilt_degrees": "none"}},
        {"trained_for": {"tilt_degrees": [1.0, 2.0]}},
        {"trained_for": {"noise_ppm": 0.1}},
        {"trained_for": {"slice_ratio": [1.0]}},
        {"trained_for": {"in_plane_ratio": None}},
    ],
)
def test_malformed_card(weights, changes):
    edit_card(weights, **changes)
    part = next(iter(changes))
    assert ("trained_for" if part == "trained_for" else "malformed") in refused(weights)


@pytest.mark.parametrize("key", ["network", "trained_for"])
def test_null_in_the_card(weights, key):
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    assert "malformed" in refused(weights)


def test_card_that_is_a_folder(weights):
    weights.with_suffix(".json").unlink()
    weights.with_suffix(".json").mkdir()
    assert "cannot be read" in refused(weights)


def test_weights_that_may_not_be_reached(tmp_path):
    with pytest.raises(UnreadableError, match="cannot be read"):
        load_weights(tmp_path / f"{'a' * 300}.safetensors")


def test_card_of_another_format(weights):
    edit_card(weights, format=99)
    assert "update qsmnet" in refused(weights)


@pytest.mark.parametrize(
    "target",
    ["os.system", "antigravity.nothing", "qsmnet.cli.main", "qsmnet.networks", "", "networks.unet"],
)
def test_foreign_target_is_refused_before_it_is_imported(weights, target):
    edit_card(weights, network={"_target_": target, "command": "true"})
    before = set(sys.modules)
    message = refused(weights)
    assert "do not trust" in message
    assert "antigravity" not in set(sys.modules) - before


@pytest.mark.parametrize(
    "target",
    [
        "qsmnet.networks.unet.Missing",
        "qsmnet.networks.missing.UNet",
        "qsmnet.networks.unet.torch",
        "qsmnet.networks.unet.robust_scale",
        "qsmnet.networks.contract.Network",
    ],
)
def test_what_is_no_network_is_refused(target):
    with pytest.raises(WeightsError):
        build_network({"_target_": target}, "card")


def test_function_that_is_no_network_is_refused():
    with pytest.raises(WeightsError, match="is not a network"):
        build_network({"_target_": "qsmnet.networks.kqsm.dipole_spectrum", "target": 7}, "card")


def test_what_is_no_network_is_not_called(monkeypatch):
    def call(*_, **__):
        raise AssertionError("called")

    foreign = type("Foreign", (torch.nn.Module,), {"__init__": call})
    for found in (call, foreign, type("Own", (), {"__init__": call})):
        monkeypatch.setattr("qsmnet.networks.kqsm.dipole_spectrum", found)
        with pytest.raises(WeightsError, match="is not a network"):
            build_network({"_target_": "qsmnet.networks.kqsm.dipole_spectrum"}, "card")


@pytest.mark.parametrize("channels", [[], "ab", [-1, 4], None])
def test_strange_parameters(weights, channels):
    path = weights.with_suffix(".json")
    card = json.loads(path.read_text())
    card["network"]["channels"] = channels
    path.write_text(json.dumps(card))
    assert "cannot be built" in refused(weights)


def test_unknown_parameter(weights):
    edit_card(weights, network={**UNET, "depth": 3})
    assert "cannot be built" in refused(weights)


def test_weights_of_another_architecture(weights):
    edit_card(weights, network={**UNET, "channels": [4, 8]})
    assert "does not fit its network" in refused(weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    state = UNet((4, 6)).state_dict()
    state["head.bias"][0] = value
    save_weights(tmp_path / "w.safetensors", state, {"network": UNET})
    assert "NaN or infinity" in refused(tmp_path / "w.safetensors")


def test_file_that_is_no_safetensors(weights):
    weights.write_bytes(b"PK\x03\x04 a pickle")
    edit_card(weights, sha256=store._hash_of_file(weights))
    assert "does not fit its network" in refused(weights)


def test_nothing_is_replaced_unasked(weights):
    state, card = UNet((4, 6)).state_dict(), {"network": UNET}
    with pytest.raises(OutputError, match="exists already"):
        save_weights(weights, state, card)
    save_weights(weights, state, card, overwrite=True)
    network, _ = load_weights(weights)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_released_weights_are_those_of_the_manifest(tmp_path, monkeypatch, weights):
    folder = tmp_path / "released"
    folder.mkdir()
    for suffix in (".safetensors", ".json"):
        (folder / f"own{suffix}").write_bytes(weights.with_suffix(suffix).read_bytes())
    sha = store._hash_of_file(weights)
    (folder / "manifest.json").write_text(json.dumps({"own": sha, "lost": sha}))
    monkeypatch.setattr(store, "_FOLDER", folder)
    monkeypatch.setattr(store, "_MANIFEST", folder / "manifest.json")
    assert released_names() == ["lost", "own"]
    assert store.verify_released() == [("lost", False), ("own", True)]
    assert isinstance(load_weights("own")[0], UNet)
    # a card that was changed together with its file does not get past the manifest
    tensors = load_file(folder / "own.safetensors")
    tensors["head.bias"] += 1
    save_file(tensors, folder / "own.safetensors")
    changed = json.loads((folder / "own.json").read_text())
    changed["sha256"] = store._hash_of_file(folder / "own.safetensors")
    (folder / "own.json").write_text(json.dumps(changed))
    assert "damaged" in refused("own")
    assert store.verify_released() == [("lost", False), ("own", False)]


def test_every_released_file_is_intact():
    assert all(ok for _, ok in store.verify_released())
    for name in released_names():
        network, card = load_weights(name)
        assert card["trained_for"]["voxel_size_mm"]
        assert sum(p.numel() for p in network.parameters()) > 1000
