"""What the wheel will hold: an explicit list of packages needs a test."""

import re
import tomllib
from pathlib import Path

import yaml

import qsmnet

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))


def test_package_list_is_the_tree():
    # namespace folders do not count: every folder of the package has its __init__.py
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "qsmnet").rglob("*.py")}
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file(), folder
    walk = {".".join(folder.parts) for folder in folders} | {"qsmnet.configs"}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(walk)
    assert len(listed) == len(set(listed))


def test_configs_are_a_package_of_their_own():
    assert PROJECT["tool"]["setuptools"]["package-dir"]["qsmnet.configs"] == "configs"
    # Hydra finds packaged configs only with it
    assert (ROOT / "configs" / "__init__.py").is_file()
    assert not (ROOT / "qsmnet" / "configs").exists()


def test_versions_agree():
    assert PROJECT["project"]["version"] == qsmnet.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text("utf8")
    assert f"## [{qsmnet.__version__}]" in changelog


def test_citation_is_valid_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == qsmnet.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["title"]
    assert citation["message"]
    assert all(author.get("name") or author.get("family-names") for author in citation["authors"])
    assert all(re.fullmatch(r"10\.\d{4,9}/\S+", r["doi"]) for r in citation["references"])


def test_licence_files_exist_and_travel():
    for name in PROJECT["project"]["license-files"]:
        assert (ROOT / name).stat().st_size > 0, name
