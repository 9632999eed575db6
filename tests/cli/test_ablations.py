"""The study of ablations: a tiny run of it, and what its table says."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml
from small_maps import write_map

from qsmnet.cli.compose import compose
from qsmnet.evaluate.ablations import Ablation, summarise_ablation
from qsmnet.evaluate.case_study import Phantoms

FOLDER = Path(__file__).parents[2] / "simulations" / "ablations"


def script():
    spec = importlib.util.spec_from_file_location("ablations_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config():
    return yaml.safe_load((FOLDER / "config.yaml").read_text())


def sixteen_maps(folder):
    write_map(folder / "head_02.nii.gz")
    for number in (1, *range(3, 17)):
        shutil.copy(folder / "head_02.nii.gz", folder / f"head_{number:02d}.nii.gz")
    return folder


def test_items_are_no_training_maps():
    assert not set(config()["maps"]) & set(compose("simulator", "anatomy").sources["anatomy"].maps)


@pytest.fixture
def study(tmp_path):
    variants = {"as it is": [], "other": ["network.base=4"]}
    items = {"a": Phantoms("primitives", 2), "b": Phantoms("primitives", 1)}
    return Ablation(variants, ["threads=1"], items, lambda _: None, 1, tmp_path)


def add(study, variant, items, number, nrmse):
    row = {"variant": variant, "items": items, "item": number, "nrmse": nrmse}
    study.results.append({**row, "reference_nrmse": 10.0, "steps": 5, "train_hours": 0.5})


def test_table_has_geometric_means_of_whole_variants(study):
    assert study.missing("other") == [("a", 0), ("a", 1), ("b", 0)]
    for items, number, nrmse in (("a", 0, 4.0), ("a", 1, 9.0), ("b", 0, 20.0)):
        add(study, "as it is", items, number, nrmse)
    add(study, "other", "a", 0, 1.0)
    summarise_ablation(study)
    lines = (study.folder / "table.md").read_text().splitlines()
    assert lines[2:] == ["| as it is | 5 | 30.0 | 6.0 | 20.0 | 0.600 | 2.000 |"]
    assert study.settings("other") == ["threads=1", "network.base=4"]


@pytest.mark.slow
def test_smoke_run(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    arguments = ["--labels", str(sixteen_maps(maps)), "--runs", str(tmp_path / "runs"), "--smoke"]
    arguments += ["--out", str(tmp_path / "out"), "--variants", "as it is", "two iterations"]
    script().run(FOLDER, "", arguments)
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 1 + 2 * 4
    assert "two iterations" in (tmp_path / "out" / "table.md").read_text()


def test_unknown_variant_is_one_line(tmp_path):
    arguments = ["--labels", str(tmp_path), "--runs", str(tmp_path), "--variants", "nonsense"]
    with pytest.raises(SystemExit, match="nonsense"):
        script().run(FOLDER, "", [*arguments, "--out", str(tmp_path / "out")])
