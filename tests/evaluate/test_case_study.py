"""The study of cases: what is tried, resumed and compared."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml

from qsmnet.cli import study_tools
from qsmnet.cli.compose import compose, settings
from qsmnet.cli.study_tools import front, make, tools
from qsmnet.errors import UsageError
from qsmnet.evaluate.case_figures import draw_cases, spectra, sweep_curves
from qsmnet.evaluate.case_run import Wanted, run_cases
from qsmnet.evaluate.case_study import KEY, CaseStudy, Table
from qsmnet.evaluate.case_summary import case_tables, places_of, summarise_cases
from qsmnet.evaluate.tools import Tools
from qsmnet.geometry import Geometry
from qsmnet.inversion.learned import LearnedInverter
from qsmnet.inversion.tkd import TKD
from qsmnet.mask.mask import MaskPair
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.volumes import LocalField, Scan, Susceptibility

ROOT = Path(__file__).parents[2] / "simulations"
TINY = Protocol((32, 40, 36), (6.0, 6.0, 6.0), 3.0, (0.003, 0.006, 0.009), 0.03, 15.0)
GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
CONFIG = {
    "seed": 1,
    "heads": {"choose": [1, 2], "test": [3]},
    "protocols": {"plain": {"protocol": "tiny"}},
    "phantoms": {
        "shapes": {"simulator": "primitives", "count": 2, "overrides": ["shape=[16,16,16]"]}
    },
    "scene": {"margin": 2, "erosion": 12.0},
    "skip": ["kqsm"],
    "tables": {
        "inversion": {
            "title": "Inversion",
            "fixed": {"tkd": ["padding=1.5"]},
            "grids": {"tkd": {"threshold": [0.15, 0.3, 0.6]}},
        },
        "changes": {
            "title": "Changes",
            "protocols": ["shapes"],
            "inputs": {
                "as it is": {},
                "loud": {"sd": 1.0},
                "absent": {"corruption": {"_target_": "qsmnet.simulate.cheese.Cheese"}},
                "needs a head": {"background": "vsharp"},
            },
            "against_first": True,
        },
    },
}


@dataclass(frozen=True)
class Fake(LearnedInverter):
    """A network whose map is half of TKD's."""

    weights: str = "none"

    def __call__(self, local: LocalField, /) -> Susceptibility:
        found = TKD(0.2, kernel=self.kernel)(local)
        return Susceptibility(0.5 * found.chi, found.mask)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture
def study(tmp_path, cache):
    names = {"inverter": ("kqsm", "net", "tkd"), "corruptions": (), "background": ("vsharp",)}

    def build(group, name, overrides):
        if group == "protocol":
            return TINY
        return Fake() if name == "net" else compose(group, name, overrides)

    found = Tools(names.__getitem__, build, make, front, pytest.fail)
    return CaseStudy.from_config(CONFIG, found, tmp_path, cache=cache)


def test_learned_methods_come_from_the_config_group(study):
    assert study.learned == ["net"]
    tasks = [(task.method, task.parameter) for task in study.tasks("inversion")]
    grid = [("tkd", f"threshold={value}") for value in (0.15, 0.3, 0.6)]
    assert tasks == [("net", "default"), ("tkd", "default"), *grid]
    assert list(study.inputs(study.tables["changes"])) == ["as it is", "loud", "needs a head"]


def test_what_is_done_is_not_done_again(study, monkeypatch):
    wanted = Wanted(heads=[1], tables=["inversion"])

    def fail(self, local):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(TKD, "__call__", fail)
        run_cases(study, wanted)
    assert {row["error"] for row in study.results.rows().values()} == {"no memory"}
    said = []
    run_cases(study, wanted, said.append)
    assert len(said) == 5
    run_cases(study, wanted, pytest.fail)
    rows = study.results.rows()
    assert {row["error"] for row in rows.values()} == {""}
    assert all(row["commit"] and float(row["seconds"]) > 0 for row in rows.values())
    assert {key[1] for key in rows} == {"plain"}
    first = rows["inversion", "plain", "procedural-1", "as it is", "net", "default"]
    assert float(first["slope"]) < 0.6
    assert first["e00"]


def test_best_of_the_grid_and_the_winner(study):
    run_cases(study, Wanted(heads=[1, 2], tables=["inversion"]))
    (place,) = places_of(study, "inversion", "choose")
    tuned = next(entry for entry in place.entries if entry.tuned)
    rows = study.results.rows().values()
    for item, row in tuned.rows.items():
        tried = [float(r["nrmse"]) for r in rows if r["item"] == item and r["method"] == "tkd"]
        assert float(row["nrmse"]) == min(tried)
        assert len(tried) == 4
    assert [entry.parameter for entry in place.classical] == [tuned.parameter]
    net = place.learned[0]
    assert place.ratio(net) == pytest.approx(
        sum(float(net.rows[i]["nrmse"]) / float(tuned.rows[i]["nrmse"]) for i in net.rows) / 2
    )
    assert place.complete
    summarise_cases(study, "choose")
    text = (study.folder / "table.md").read_text()
    winner = min([tuned, net], key=lambda entry: entry.mean("nrmse")).method
    assert f"| {winner} |\n" in text.split("winner")[1]
    assert "| white matter |" in text


def test_methods_that_saw_other_cases_are_no_contest(study):
    run_cases(study, Wanted(heads=[1], tables=["inversion"]))
    run_cases(study, Wanted(heads=[2], tables=["inversion"], methods=["tkd"]))
    text = case_tables(study, "choose")
    assert "not all cases yet" in text
    assert "1 to 2" in text


def test_changes_are_told_over_the_first(study):
    run_cases(study, Wanted(protocols=["shapes"]))
    rows = study.results.rows()
    assert {key[2] for key in rows} == {"choose-0", "choose-1"}
    errors = {key[3]: row["error"] for key, row in rows.items()}
    assert errors["as it is"] == ""
    assert "needs a head" in errors["needs a head"]
    summarise_cases(study, "choose")
    text = (study.folder / "table.md").read_text()
    assert "| shapes, as it is | 1.000 |" in text
    assert "## Failed" in text
    # the same network on the same volumes
    still, loud = (
        rows["changes", "shapes", "choose-0", n, "net", "default"] for n in list(errors)[:2]
    )
    assert float(loud["nrmse"]) > float(still["nrmse"])


def test_kernel_of_a_phantom_is_told(study, monkeypatch):
    kernels = []

    def spy(self, local):
        kernels.append(self.kernel)
        return Susceptibility(torch.zeros_like(local.field), local.mask)

    monkeypatch.setattr(Fake, "__call__", spy)
    run_cases(study, Wanted(protocols=["shapes"], tables=["changes"], methods=["net"]))
    run_cases(study, Wanted(heads=[1], tables=["inversion"], methods=["net"]))
    assert set(kernels[:-1]) == {"prism"}
    assert kernels[-1] == "sampled"


def test_splits_have_their_own_rows(study):
    run_cases(study, Wanted("test", tables=["inversion"], methods=["net"]))
    summarise_cases(study, "test")
    summarise_cases(study, "choose")
    assert "procedural-3" in (study.folder / "table_test.md").read_text()
    assert "| net |" not in (study.folder / "table.md").read_text()
    # volumes have the same numbers in every split
    for split in ("test", "choose"):
        run_cases(study, Wanted(split, protocols=["shapes"], methods=["net"]))
    rows = study.results.rows()
    pair = [rows["changes", "shapes", f"{s}-0", "loud", "net", "default"] for s in study.splits]
    assert pair[0]["nrmse"] != pair[1]["nrmse"]


@pytest.mark.parametrize(
    ("wanted", "option"),
    [
        (Wanted(methods=["kqsm"]), "--methods"),
        (Wanted(protocols=["cheese"]), "--protocols"),
        (Wanted(tables=["cheese"]), "--tables"),
        (Wanted(heads=[3]), "--heads"),
        (Wanted("cheese"), "--split"),
    ],
)
def test_unknown_names_are_refused(study, wanted, option):
    with pytest.raises(UsageError, match=option):
        run_cases(study, wanted)
    assert not study.results.path.exists()


def test_wrong_settings_are_told_at_once(study, tmp_path):
    with pytest.raises(ValueError, match="at most 7"):
        Table("t", grids={"tkd": {"threshold": [0.1] * 8}})
    with pytest.raises(TypeError, match="cheese"):
        Table("t", inputs={"a": {"cheese": 1}})
    broken = CONFIG | {"tables": {"a": {"title": "t", "protocols": ["cheese"]}}}
    with pytest.raises(ValueError, match="no protocol is called cheese"):
        CaseStudy.from_config(broken, study.tools, tmp_path)


def committed(name, folder):
    config = yaml.safe_load((ROOT / name / "config.yaml").read_text())
    return CaseStudy.from_config(config, tools(), folder)


def script(name):
    path = ROOT / name / "run.py"
    assert len(path.read_text().splitlines()) <= 60
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_study_is_what_it_says(tmp_path):
    study = committed("final_cases", tmp_path)
    assert not set(study.splits["choose"]) & set(study.splits["test"])
    assert len(study.protocols) == 5
    assert {"kqsm", "unet"} <= set(study.learned)
    asked = {(task.method, *task.overrides) for name in study.tables for task in study.tasks(name)}
    for method, *overrides in {(name, *(each.split("=")[0] for each in o)) for name, *o in asked}:
        # every value of a key is composed alike
        settings("inverter", method, [f"{key}=0" for key in overrides])
    for name, table in study.tables.items():
        assert study.inputs(table) or name == "tissue_error"
    for each in study.phantoms.values():
        compose("simulator", each.simulator, each.overrides)


def test_smoke_run_of_the_committed_study(tmp_path, capsys):
    arguments = ["--smoke", "--out", str(tmp_path), "--methods", "unet", "--tables"]
    wanted = ["inversion", "shapes", "properties"]
    script("final_cases").run(ROOT / "final_cases", "", [*arguments, *wanted])
    rows = committed("final_cases", tmp_path).results.rows()
    assert {row["error"] for row in rows.values()} == {""}
    # of a head and a volume, and of two properties
    assert len(rows) == 2 + 2
    assert "winner" in (tmp_path / "table.md").read_text()
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert {tuple(row[name] for name in KEY) for row in rows.values()} == set(rows)


def test_two_passes_have_no_one_field(monkeypatch):
    inside = torch.ones(4, 4, 4, dtype=torch.bool)
    monkeypatch.setattr(study_tools.Pipeline, "object_mask", lambda *_: MaskPair(inside, inside))
    scan = Scan(torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 4, 4), (0.01,), 3.0, GEOMETRY)
    with pytest.raises(UsageError, match="two passes"):
        front("default")(scan)


def test_sweeps_are_drawn_over_their_positions(study):
    table = study.tables["changes"]
    swept = replace(table, positions={"as it is": 0.0, "loud": 1.0}, axis="sd / ppm", spectrum=True)
    study = replace(study, tables={"changes": swept})
    run_cases(study, Wanted(protocols=["shapes"]))
    places = places_of(study, "changes", "choose")
    (curve,) = sweep_curves(swept, places).values()
    assert set(curve) == {0.0, 1.0}
    assert curve[0.0] == pytest.approx(places[0].learned[0].mean("nrmse"))
    panel = spectra(places)["shapes, as it is"]["net"]
    assert len(panel.error) == len(panel.edges) - 1 == 20
    draw_cases(study, "choose")
    assert {path.name for path in study.folder.glob("*.png")} == {
        "changes.png",
        "changes_spectrum.png",
    }


def test_every_limit_has_its_place(tmp_path):
    study = committed("learned_limits", tmp_path)
    for name, table in study.tables.items():
        assert bool(table.axis) == (name != "domain")
        swept = {*table.inputs, *study.protocols_of(table)}
        assert set(table.positions) <= swept
        assert len(table.positions) in {0, len(table.inputs), len(study.protocols_of(table))}
    for each in study.phantoms.values():
        compose("simulator", each.simulator, each.overrides)


@pytest.mark.slow
def test_smoke_run_of_the_limits(tmp_path):
    tables = ["noise", "range", "erosion"]
    arguments = ["--smoke", "--out", str(tmp_path), "--methods", "tv", "--tables", *tables]
    script("learned_limits").run(ROOT / "learned_limits", "", arguments)
    rows = committed("learned_limits", tmp_path).results.rows()
    assert {row["error"] for row in rows.values()} == {""}
    assert len(rows) == 6
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {f"{name}.png" for name in (*tables, "noise_spectrum")}


def test_what_is_wrong_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="error: --methods: cheese is not known"):
        script("final_cases").run(ROOT / "final_cases", "", ["--methods", "cheese"])
    (tmp_path / "a.nii.gz").touch()
    arguments = ["--labels", str(tmp_path), "--out", str(tmp_path / "out"), "--methods", "tv"]
    with pytest.raises(SystemExit, match=r"error: .*has no map 13"):
        script("final_cases").run(ROOT / "final_cases", "", arguments)
    assert not (tmp_path / "out").exists()
