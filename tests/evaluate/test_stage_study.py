"""The study of stages: what is tried, resumed, and when the test heads may be seen."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from qsmnet.cli.compose import compose, settings
from qsmnet.cli.stages import run
from qsmnet.cli.study_tools import tools
from qsmnet.errors import UsageError
from qsmnet.evaluate.stage_run import run_stages
from qsmnet.evaluate.stage_study import ALONE, KEY, Group, StageStudy, Task, Wanted
from qsmnet.evaluate.stage_summary import summarise_stages
from qsmnet.evaluate.tools import Tools
from qsmnet.inversion.tkd import TKD
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.volumes import Susceptibility

FOLDER = Path(__file__).parents[2] / "simulations" / "classical_pipeline"
TINY = Protocol((32, 40, 36), (6.0, 6.0, 6.0), 3.0, (0.003, 0.006, 0.009), 0.03, 15.0)
CONFIG = {
    "seed": 1,
    "heads": {"choose": [1, 2], "test": [3]},
    "conditions": {"plain": {"protocol": "tiny"}},
    "scene": {"near_air": 12.0, "margin": 2, "erosion": 12.0},
    "unwrap": {
        "alone": ["best_path"],
        "mappings": {
            "joined": {"unwrap": ["best_path", "seed=1"]},
            "absent": {"unwrap": "best_path", "offset": "cheese"},
        },
    },
    "inverter": {
        "skip": ["unet"],
        "variants": {"other": {"tkd": ["padding=1.5"]}, "absent": {"nothing": []}},
        "grids": {"tkd": {"threshold": [0.2, 0.6]}},
    },
    "pipeline": {
        "fast": {"unwrap": "best_path", "mask": "truth"},
        "absent": {"unwrap": "cheese", "mask": "truth"},
    },
}
TKD_ROWS = ("inverter", "procedural-1", "plain", "tkd")
NAMES = {"unwrap": ["best_path"], "background": ["vsharp"], "inverter": ["tkd", "unet"]}
NAMES |= {"mask": [], "offset": []}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture
def built():
    return []


@pytest.fixture
def study(tmp_path, cache, built):
    def build(group, name, overrides):
        built.append((group, name, list(overrides)))
        return TINY if group == "protocol" else compose(group, name, overrides)

    def pipeline(stages):
        assert stages == {"unwrap": "best_path", "mask": "truth"}
        return lambda scan, mask: Susceptibility(scan.magnitude[0] * mask, mask)

    found = Tools(NAMES.__getitem__, build, pytest.fail, pytest.fail, pipeline)
    return StageStudy.from_config(CONFIG, found, tmp_path, cache=cache)


def methods(built):
    return [each for each in built if each[0] not in {"protocol", "simulator"}]


def test_rows_of_a_study(study):
    tasks = {(task.table, task.method, task.parameter) for task in study.tasks(Wanted())}
    assert tasks == {
        ("unwrap", "best_path", "default"),
        ("unwrap", "best_path", ALONE),
        ("unwrap", "joined", "default"),
        ("background", "vsharp", "default"),
        ("inverter", "tkd", "default"),
        ("inverter", "tkd", "other"),
        ("inverter", "tkd", "threshold=0.2"),
        ("inverter", "tkd", "threshold=0.6"),
        ("pipeline", "fast", "default"),
    }
    some = study.tasks(Wanted(tables=["inverter"], grids=False))
    assert [task.parameter for task in some] == ["default", "other"]
    assert study.tasks(Wanted(methods=["vsharp"])) == [Task("background", "vsharp", "default", [])]


def test_a_grid_comes_with_what_is_fixed():
    group = Group(grids={"tv": {"regularisation": [1, 2]}}, fixed={"tv": ["noise_gain=0"]})
    assert group.parameters("tv")["regularisation=2"] == ["noise_gain=0", "regularisation=2"]
    assert group.parameters("tkd") == {"default": []}


def test_a_grid_of_eight_is_refused():
    with pytest.raises(ValueError, match="at most 7"):
        Group(grids={"tkd": {"threshold": [0.1] * 8}})


def test_what_is_done_is_not_done_again(study, built, monkeypatch):
    wanted = Wanted(heads=[1], methods=["tkd"])

    def fail(self, local):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(TKD, "__call__", fail)
        run_stages(study, wanted)
    errors = {row["error"] for row in study.results.rows().values()}
    assert errors == {"no memory"}
    said = []
    run_stages(study, wanted, said.append)
    assert len(said) == 4
    rows = study.results.rows()
    assert {row["error"] for row in rows.values()} == {""}
    thresholds = [
        rows["inverter", "procedural-1", "plain", "tkd", f"threshold={v}"] for v in (0.2, 0.6)
    ]
    assert len({row["nrmse"] for row in thresholds}) == 2
    assert all(row["commit"] and float(row["seconds"]) > 0 for row in rows.values())
    built.clear()
    run_stages(study, wanted, said.append)
    assert len(said) == 4
    assert not methods(built)


def test_method_that_cannot_be_built_has_its_row(study):
    broken = replace(
        study, groups={**study.groups, "inverter": Group(variants={"bad": {"tkd": ["cheese=1"]}})}
    )
    run_stages(broken, Wanted(heads=[1], tables=["inverter"], methods=["tkd"]))
    rows = study.results.rows()
    assert (
        "has no parameter 'cheese'"
        in rows["inverter", "procedural-1", "plain", "tkd", "bad"]["error"]
    )
    assert rows["inverter", "procedural-1", "plain", "tkd", "default"]["error"] == ""


def test_test_heads_are_seen_after_the_others(study):
    inversions = Wanted("test", tables=["inverter"])
    with pytest.raises(UsageError, match="not tried on the other heads yet"):
        run_stages(study, inversions)
    run_stages(study, Wanted(tables=["inverter"], heads=[1]))
    run_stages(study, inversions)
    summarise_stages(study, "choose")
    summarise_stages(study, "test")
    table = (study.folder / "table_test.md").read_text()
    assert "best of 2:" in table
    assert "heads procedural-3" in table
    assert "procedural-3" not in (study.folder / "table.md").read_text()


def test_every_table_is_written(study):
    run_stages(study, Wanted(heads=[1], grids=False))
    old = ("inverter", "procedural-1", "plain", "tkd", "cheese=1")
    study.results.append(dict(zip(KEY, old, strict=True)) | {"nrmse": 1.0})
    summarise_stages(study, "choose")
    table = (study.folder / "table.md").read_text()
    for title in ("Unwrapping", "Background removal", "Inversion", "Whole pipelines"):
        assert f"## {title}" in table
    assert ALONE in table
    assert "| tkd | other |" in table
    # nothing of a grid was tried, and what is no longer asked for is not shown
    assert "best of" not in table
    assert "cheese" not in table


@pytest.mark.parametrize(
    ("wanted", "option"),
    [
        (Wanted(methods=["cheese"]), "--methods"),
        (Wanted(conditions=["cheese"]), "--conditions"),
        (Wanted(tables=["cheese"]), "--tables"),
        (Wanted(heads=[17]), "--heads"),
        (Wanted("cheese"), "--split"),
    ],
)
def test_unknown_names_are_refused(study, wanted, option):
    with pytest.raises(UsageError, match=option):
        run_stages(study, wanted)


def committed(tmp_path):
    config = yaml.safe_load((FOLDER / "config.yaml").read_text())
    return StageStudy.from_config(config, tools(), tmp_path)


def test_committed_study_is_what_it_says(tmp_path):
    study = committed(tmp_path)
    assert not set(study.splits["choose"]) & set(study.splits["test"])
    assert {each.kind for each in study.conditions.values()} == {"plain", "lesions"}
    for group in ("unwrap", "background", "inverter"):
        for task in study.tasks(Wanted(tables=[group])):
            if task.method not in study.groups[group].mappings:
                settings(group, task.method, task.overrides)
    assert study.tasks(Wanted(tables=["pipeline"]))
    assert len((FOLDER / "run.py").read_text().splitlines()) <= 60


def test_smoke_run_of_the_committed_script(tmp_path):
    spec = importlib.util.spec_from_file_location("classical_pipeline", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    named = ["best_path", "vsharp", "tkd", "romeo, vsharp, tkd"]
    arguments = ["--smoke", "--out", str(tmp_path), "--methods", *named]
    module.run(FOLDER, "", [*arguments, "--conditions", "1 mm 3 T lesions"])
    rows = committed(tmp_path).results.rows()
    assert {row["error"] for row in rows.values()} == {""}
    # one head: unwrapping of all echoes and of each alone, two thresholds of V-SHARP, TKD with its
    # default, its own choice and two thresholds, and the pipeline
    assert len(rows) == 2 + 2 + 4 + 1
    assert (tmp_path / "table.md").exists()


def test_what_is_wrong_is_one_line(tmp_path):
    arguments = ["--out", str(tmp_path), "--conditions", "cheese"]
    with pytest.raises(SystemExit, match="error: --conditions: cheese is not known"):
        run(FOLDER, "", arguments)
    assert not any(tmp_path.iterdir())
