"""The script that trains the first steps of a released network again."""

import importlib.util
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

SCRIPT = Path(__file__).parents[2] / "scripts" / "repeat_training.py"
RECIPE = ("simulator", "data", "loss", "optimizer", "warmup", "ema_decay", "seed", "stages")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("repeat_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def composed(*overrides):
    with initialize_config_module("qsmnet.configs", version_base="1.3"):
        config = compose("train", overrides=["out=RUN", "data.labels=MAPS", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def card(config):
    data = {k: v for k, v in config["data"].items() if k not in ("labels", "bank")}
    recipe = {**{name: config[name] for name in RECIPE}, "data": data}
    recipe |= {"trainer": config["trainer"], "schedule_steps": config["schedule_steps"]}
    command = "qsmnet train experiment=NAME data.labels=MAPS threads=2 out=runs/it"
    return {"network": config["network"], "recipe": recipe, "command": command, "stages": []}


@pytest.mark.parametrize("experiment", ["unrolled", "residual"])
def test_a_shorter_run_has_the_settings_of_the_card(script, experiment):
    kept = card(composed(f"experiment={experiment}"))
    command = script.short_command(kept, "my maps", Path("again"), 200)
    assert command[:5] == [
        "qsmnet", "train", "experiment=NAME", "data.labels=my maps", "threads=2",
    ]  # fmt: skip
    assert "out=again" in command
    again = composed(f"experiment={experiment}", *command[6:])
    assert again["trainer"]["max_steps"] == again["epoch"] == 200
    assert again["schedule_steps"] == kept["recipe"]["schedule_steps"]
    assert list(script.changed_settings(kept, again)) == []


def test_what_has_changed_since_is_named(script):
    kept = card(composed("experiment=unrolled"))
    kept["network"]["start_iterations"] = 60
    kept["trained_with"] = {"network.start_iterations": 20}
    later = composed("experiment=unrolled", "network.start_iterations=20", "network.base=48")
    assert list(script.changed_settings(kept, later)) == ["network.base"]
    later = composed("experiment=unrolled", "simulator.corruptions.holes.probability=0.9")
    assert list(script.changed_settings(kept, later)) == [
        "simulator.corruptions.holes.probability",
        "network.start_iterations",
    ]


def test_the_end_of_a_network_is_nothing_to_its_crops(script):
    kept = card(composed("experiment=unrolled"))
    kept["trained_with"] = {"network.shrinkage": False}
    later = composed("experiment=unrolled")
    assert later["network"]["shrinkage"]
    assert list(script.changed_settings(kept, later)) == []
    del kept["stages"]
    assert list(script.changed_settings(kept, later)) == ["network.shrinkage"]


def test_a_second_run_begins_with_what_it_is_given(script):
    config = composed("experiment=unrolled_continued", "init=first.safetensors")
    kept = card(config)
    kept["command"] = (
        "qsmnet train experiment=unrolled_continued init=first.safetensors out=runs/it"
    )
    command = script.short_command(kept, "maps", Path("again"), 200, Path("kept.safetensors"))
    given = [word for word in command if word.startswith("init=")]
    assert given == ["init=kept.safetensors"]
    again = composed(*command[2:])
    assert again["seed"] == config["seed"]
    assert list(script.changed_settings(kept, again)) == []


def test_runs_have_the_network_that_they_had(script):
    first = {"command": "first", "trained_with": {"network.padding": 2.0}}
    second = {"command": "second", "earlier": first}
    third = {"network": {"padding": 1.4, "base": 8}, "trained_with": {"network.padding": 1.25}}
    found = script.runs({**third, "command": "third", "earlier": second})
    assert [each["command"] for each in found] == ["first", "second", "third"]
    assert [each["network"]["padding"] for each in found] == [2.0, 1.25, 1.25]
