"""Every YAML file composes and builds what it names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from qsmnet.cli.compose import available, compose
from qsmnet.errors import WeightsError
from qsmnet.training.deep_loss import Switched

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Groups whose files build a whole object by themselves; the others are parts of a root config.
METHODS = (
    "background",
    "fit",
    "inverter",
    "mask",
    "network",
    "offset",
    "r2star",
    "simulator",
    "unwrap",
)


def methods() -> Iterator[tuple[str, str]]:
    for path in sorted(CONFIGS.glob("*/*.yaml")):
        if path.parent.name in METHODS:
            yield path.parent.name, path.stem


@pytest.mark.parametrize(("group", "name"), list(methods()))
def test_method_is_built(group, name):
    try:
        built = compose(group, name)
    except WeightsError as error:
        pytest.skip(f"no weights: {error}")
    target = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text("utf8"))["_target_"]
    assert callable(built) or hasattr(built, "scene")
    if target.rpartition(".")[2][0].isupper():
        assert type(built).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize("group", METHODS)
def test_group_lists_its_files(group):
    names = {path.stem for path in (CONFIGS / group).glob("*.yaml")}
    assert names
    assert set(available(group)) == names


DESCRIBED = ("corruptions", "data", "experiment", "label_table", "loss", "protocol")


@pytest.mark.parametrize("group", [*DESCRIBED, *METHODS])
def test_files_say_what_they_are(group):
    for path in (CONFIGS / group).glob("*.yaml"):
        first = path.read_text("utf8").splitlines()[:2]
        assert any(line.startswith("# ") and not line.startswith("# @") for line in first), path


def root(name: str, *overrides: str) -> DictConfig:
    with initialize_config_module("qsmnet.configs", version_base="1.3"):
        return hydra_compose(name, overrides=list(overrides))


def stems(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def targets(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def is_loss(built: object) -> bool:
    """A loss, or two of them, one after the other."""
    return callable(built.at(0, 1) if isinstance(built, Switched) else built)


@pytest.mark.parametrize("experiment", stems("experiment"))
def test_experiment_is_built(experiment, tmp_path):
    config = root("train", f"experiment={experiment}", f"out={tmp_path}")
    if OmegaConf.is_missing(config.data, "labels"):
        config.data.labels = "MAPS"
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert all(callable(get_object(target)) for target in targets(settings))
    network = instantiate(config.network, _convert_="all")
    assert isinstance(network, torch.nn.Module)
    optimizer = instantiate(config.optimizer)(network.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert is_loss(instantiate(config.loss))
    instantiate(config.simulator, _convert_="all")


@pytest.mark.parametrize(
    ("experiment", "data"),
    [("unrolled_joint", "unrolled"), ("unrolled_tiny", "anatomy"), ("residual", "stored")],
)
def test_a_magnitude_is_a_setting_of_network_and_data(experiment, data, tmp_path):
    plain = root("train", f"experiment={experiment}", f"data={data}", f"out={tmp_path}")
    assert plain.network.magnitude is plain.data.magnitude is False
    chosen = ("network.magnitude=true", "data.magnitude=true")
    config = root("train", f"experiment={experiment}", f"data={data}", *chosen, f"out={tmp_path}")
    assert config.data.magnitude is True
    assert instantiate(config.network, _convert_="all").magnitude is True


@pytest.mark.parametrize("group", ["loss", "network", "optimizer", "simulator", "trainer"])
def test_every_part_fits_into_training(group, tmp_path):
    for name in stems(group):
        config = root("train", f"{group}={name}", f"out={tmp_path}")
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        if "_target_" in config[group]:
            built = instantiate(config[group], _convert_="all")
            assert callable(built) or is_loss(built) or group == "simulator"


@pytest.mark.parametrize("protocol", stems("protocol"))
def test_every_protocol_fits_into_a_head(protocol, tmp_path):
    choice = f"protocol@simulator.protocol={protocol}"
    config = root("simulate", "simulator=head", choice, f"out={tmp_path}")
    head = instantiate(config.simulator, _convert_="all")
    extent = head.protocol.grid.extent
    # every adult head fits, and not much more
    assert all(170 < edge < 250 for edge in extent)


@pytest.mark.parametrize("simulator", stems("simulator"))
def test_every_simulator_fits_into_simulate(simulator, tmp_path):
    config = root("simulate", f"simulator={simulator}", f"out={tmp_path}")
    assert OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_stored_pairs_need_their_folders(tmp_path):
    config = root("train", "data=stored", f"out={tmp_path}")
    missing = OmegaConf.missing_keys(config)
    assert missing == {"data.folder", "data.validation_folder"}


def test_anatomy_brings_its_simulator_and_needs_its_folder(tmp_path):
    config = root("train", "data=anatomy", f"out={tmp_path}")
    assert OmegaConf.missing_keys(config) == {"data.labels"}
    assert "anatomy" in config.simulator.sources
    chosen = root("train", "data=anatomy", "simulator=anatomy", "data.labels=maps", "out=run")
    assert set(chosen.simulator.sources) == {"anatomy"}
    assert not OmegaConf.missing_keys(chosen)


@pytest.mark.parametrize("experiment", stems("experiment"))
def test_every_experiment_takes_anatomy(experiment, tmp_path):
    chosen = (f"experiment={experiment}", "data=anatomy", "data.labels=maps", f"out={tmp_path}")
    config = root("train", *chosen)
    assert config.data._target_.endswith("anatomy_pairs")
    instantiate(config.simulator, _convert_="all")


@pytest.mark.parametrize("name", stems("corruptions"))
def test_corruptions_fit_into_a_simulator(name, tmp_path):
    choice = f"corruptions@simulator.corruptions={name}"
    config = root("simulate", "simulator=anatomy", choice, f"out={tmp_path}")
    simulator = instantiate(config.simulator, _convert_="all")
    assert all(hasattr(each, "apply") for each in simulator.corruptions.values())
    assert bool(simulator.corruptions) == (name != "none")
