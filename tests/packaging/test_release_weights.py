"""The script that puts a run's weights into the package."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from qsmnet.networks.unrolled import Unrolled
from qsmnet.weights import store
from qsmnet.weights.store import load_weights, save_weights

SCRIPT = Path(__file__).parents[2] / "scripts" / "release_weights.py"
SETTINGS = {"iterations": 1, "base": 4, "levels": 1, "convolutions": 1, "start_iterations": 4}
NETWORK = {"_target_": "qsmnet.networks.unrolled.Unrolled", **SETTINGS}


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Run the script on a package of its own."""
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(store, "_FOLDER", package)
    monkeypatch.setattr(store, "_MANIFEST", package / "manifest.json")
    spec = importlib.util.spec_from_file_location("release_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_WEIGHTS", package)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["release_weights.py", *map(str, words)])
        module.main()
        return load_weights("net")[1]

    (package / "manifest.json").write_text(json.dumps({}))
    return run


@pytest.fixture
def trained(tmp_path):
    """Make a run's folder, with weights of one value."""

    def make(name, value, **card):
        folder = tmp_path / name
        folder.mkdir()
        state = {k: torch.full_like(v, value) for k, v in Unrolled(**SETTINGS).state_dict().items()}
        content = {"network": NETWORK, "commit": name, "steps": 10, **card}
        sha = save_weights(folder / "weights.safetensors", state, content)["sha256"]
        rows = "".join(f"{step},train/loss,{value}\n" for step in (9, 199, 209))
        (folder / "metrics.csv").write_text(f"step,name,value\n{rows}")
        return folder, sha

    return make


def values():
    return {float(v.unique()) for v in load_weights("net")[0].state_dict().values()}


def test_card_says_how_to_train_it_again(release, trained):
    card = release("net", trained("first", 1.0)[0], "qsmnet train it")
    assert card["command"] == "qsmnet train it"
    assert card["first_losses"] == {"9": 1.0, "199": 1.0}
    assert values() == {1.0}


def test_mean_of_a_run_and_of_what_it_began_with(release, trained):
    first, sha = trained("first", 1.0)
    second, other = trained("second", 3.0, init={"weights": "somewhere/first", "sha256": sha})
    card = release("net", second, "second command", "--earlier", first, "first command", "--mean")
    assert values() == {2.0}
    assert card["mean_of"] == [sha, other]
    assert card["init"] == {"weights": "earlier", "sha256": sha}
    assert card["earlier"]["command"] == "first command"
    assert card["earlier"]["commit"] == "first"


def test_a_third_run_may_begin_with_what_is_released(release, trained):
    first, sha = trained("first", 1.0)
    second, _ = trained("second", 3.0, init={"weights": "first", "sha256": sha})
    before = release("net", second, "second", "--earlier", first, "first", "--mean")
    third, _ = trained("third", 4.0, init={"weights": "net", "sha256": before["sha256"]})
    card = release("net", third, "third", "--earlier", "net", "--mean")
    assert values() == {3.0}
    told = [card["command"], card["earlier"]["command"], card["earlier"]["earlier"]["command"]]
    assert told == ["third", "second", "first"]
    assert card["earlier"]["mean_of"] == before["mean_of"]


def test_a_setting_that_training_did_not_have_is_told(release, trained):
    first, _ = trained("first", 1.0)
    card = release("net", first, "it", "--use", "start_iterations=9")
    assert load_weights("net")[0].start_iterations == 9
    assert card["trained_with"] == {"network.start_iterations": 4}


def test_a_setting_that_is_younger_than_the_run_had_its_default_there(release, trained):
    first, _ = trained("first", 1.0)
    card = release("net", first, "it", "--use", "start_scale=rms")
    assert load_weights("net")[0].start_scale == "rms"
    assert card["trained_with"] == {"network.start_scale": "median"}
    with pytest.raises(SystemExit, match="no setting 'colour'"):
        release("net", first, "it", "--use", "colour=red")


def test_what_the_network_before_had_otherwise_is_told(release, trained):
    """A card has one network, that of its last run."""
    first, sha = trained("first", 1.0)
    network = {**NETWORK, "start_iterations": 9, "start_scale": "rms"}
    second, _ = trained("second", 3.0, init={"weights": "first", "sha256": sha}, network=network)
    card = release("net", second, "second", "--earlier", first, "first", "--use", "padding=1.5")
    assert card["trained_with"] == {"network.padding": 1.25}
    other = {"network.start_iterations": 4, "network.start_scale": "median"}
    assert card["earlier"]["trained_with"] == other


def test_weights_that_a_run_did_not_begin_with_are_refused(release, trained):
    first, _ = trained("first", 1.0)
    second, _ = trained("second", 3.0, init={"weights": "first", "sha256": "0"})
    with pytest.raises(SystemExit, match="not what the run began with"):
        release("net", second, "second", "--earlier", first, "first")
