"""The study: same brains for all, choice on other brains, resumable to the row."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import yaml

from qsmnet.evaluate.ledger import Ledger
from qsmnet.evaluate.study import Condition, Method, Study, choose, run_study
from qsmnet.evaluate.study_summary import summarise
from qsmnet.inversion.tkd import TKD

FOLDER = Path(__file__).parents[2] / "simulations" / "inversion_table"
BUILT = []


def build(name, parameters, kernel):
    BUILT.append((name, dict(parameters), kernel))
    return TKD(**parameters, kernel=kernel)


@pytest.fixture
def study(tmp_path):
    BUILT.clear()
    small = {"shape": (24, 24, 24)}
    conditions = {
        "still": Condition("still", 0.0, **small),
        "noisy": Condition("noisy", 0.05, **small, inverting="sampled"),
        "tilted": Condition("tilted", 0.0, **small, b0_dir=(0.0, 0.5, 1.0), tuned_on="still"),
    }
    methods = {"chosen": Method(tuned="threshold", values=(0.2, 0.6)), "fixed": Method()}
    return Study(conditions, methods, 1, range(2), range(1), tmp_path, build)


def test_scenes_differ_in_the_measurement_alone(study):
    still, noisy, tilted = (c.scene(1, "test", 0) for c in study.conditions.values())
    assert torch.equal(still.chi, noisy.chi)
    assert torch.equal(still.chi, tilted.chi)
    assert torch.equal(still.local_field_exact, noisy.local_field_exact)
    error = (noisy.local_field - noisy.local_field_exact)[noisy.mask]
    assert float(error.std()) == pytest.approx(0.05, rel=0.1)
    assert torch.equal(still.local_field, still.local_field_exact * still.mask)
    assert still.as_local_field().noise is None
    assert noisy.as_local_field().noise_level() == pytest.approx(0.05)
    assert tilted.geometry.tilt_degrees == pytest.approx(26.565, abs=1e-3)


def test_splits_share_no_brain(study):
    condition = study.conditions["still"]
    chi = [condition.scene(1, split, 0).chi for split in ("test", "choose", "demo")]
    assert not torch.equal(chi[0], chi[1])
    assert not torch.equal(chi[0], chi[2])


def test_noise_moves_the_choice(study):
    assert choose(study, "still", ["chosen", "fixed"]) == {"chosen": 0.2, "fixed": None}
    assert choose(study, "noisy", ["chosen"]) == {"chosen": 0.6}
    BUILT.clear()
    # of another condition, and known already
    assert choose(study, "tilted", ["chosen"]) == {"chosen": 0.2}
    assert not BUILT


def test_a_second_run_does_nothing_and_a_lost_row_is_made_again(study):
    run_study(study, ["still"])
    first = study.results.path.read_text()
    assert len(study.results.rows()) == 2 * 2
    BUILT.clear()
    run_study(study, ["still"])
    assert not BUILT
    lines = first.splitlines(keepends=True)
    # as a kill in the middle of a row leaves it
    study.results.path.write_text("".join(lines[:-1]) + lines[-1][:40])
    run_study(study, ["still"])
    assert len(BUILT) == 1
    assert len(study.results.rows()) == 2 * 2


def test_a_failed_row_is_tried_again(study, monkeypatch):
    def fail(self, local):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(TKD, "__call__", fail)
        run_study(study, ["still"], ["fixed"])
    assert {row["error"] for row in study.results.rows().values()} == {"no memory"}
    run_study(study, ["still"], ["fixed"])
    assert {row["error"] for row in study.results.rows().values()} == {""}


def test_summary_has_medians_and_curves(study):
    run_study(study, ["noisy"])
    assert ("chosen", {"threshold": 0.6}, "sampled") in BUILT
    summarise(study)
    table = (study.folder / "table.md").read_text()
    rows = study.results.rows()
    values = sorted(float(rows["noisy", str(i), "fixed"]["nrmse"]) for i in range(2))
    expected = f"{sum(values) / 2:.1f}"
    line = next(line for line in table.splitlines() if line.startswith("| noisy | 2 |"))
    assert line.split("|")[-2].strip() == expected
    assert '{"threshold": 0.6}' in table
    assert (study.folder / "spectrum.png").stat().st_size > 1000


def test_unequal_numbers_of_brains_show(study):
    run_study(study, ["still"], ["fixed"])
    summarise(study)
    assert "| still | 0 to 2 |" in (study.folder / "table.md").read_text()


def test_ledger_keeps_the_last_row_of_a_key(tmp_path):
    ledger = Ledger(tmp_path / "new" / "rows.csv", ("a", "b", "c"), key=2)
    assert ledger.rows() == {}
    ledger.append({"a": 1, "b": "x, y", "c": 3})
    ledger.append({"a": 1, "b": "x, y", "c": 4})
    ledger.append({"a": 2, "b": ""})
    assert ledger.rows()["1", "x, y"]["c"] == "4"
    assert ledger.rows()["2", ""]["c"] == ""
    with ledger.path.open() as file:
        assert next(csv.reader(file)) == ["a", "b", "c"]


def test_committed_study_is_what_it_says():
    config = yaml.safe_load((FOLDER / "config.yaml").read_text())
    study = Study.from_config(config, FOLDER, build)
    assert len(study.brains) == 20
    assert list(study.methods) == ["tkd", "tikhonov", "tv", "kqsm", "unet"]
    assert all(min(c.shape) >= 128 for c in study.conditions.values())
    assert {c.noise for c in study.conditions.values()} == {0.0, 0.002, 0.005}
    assert all(not c.tuned_on or c.tuned_on in study.conditions for c in study.conditions.values())
    assert len((FOLDER / "run.py").read_text().splitlines()) <= 60


def test_smoke_run_of_the_committed_script(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("inversion_table", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = ["run.py", "--smoke", "--methods", "tkd", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path)])
    module.main()
    rows = Study.from_config(yaml.safe_load((FOLDER / "config.yaml").read_text()), tmp_path, build)
    assert {row["error"] for row in rows.results.rows().values()} == {""}
    assert len(rows.results.rows()) == 2
    assert (tmp_path / "table.md").exists()
