"""Every YAML file composes and builds what it names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from qsmnet.cli.compose import available, compose
from qsmnet.errors import WeightsError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Groups whose files build a whole object by themselves; the others are parts of a root config.
METHODS = ("background", "inverter", "mask", "network", "simulator", "unwrap")


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


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_file_says_what_it_is(path):
    lines = path.read_text("utf8").splitlines()
    assert any(line.startswith("# ") and not line.startswith("# @") for line in lines[:3])
