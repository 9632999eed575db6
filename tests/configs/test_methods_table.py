"""The page of methods is what the code says."""

import importlib.util
from pathlib import Path

import pytest

from qsmnet.cli.compose import available

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table():
    path = ROOT / "scripts" / "methods_table.py"
    spec = importlib.util.spec_from_file_location("methods_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(table):
    return table.page()


def test_page_is_what_the_code_says(page):
    written = (ROOT / "docs" / "methods-table.md").read_text(encoding="utf-8")
    assert written == page, "run python scripts/methods_table.py"


def test_every_method_of_every_stage_is_there(table, page):
    for group in table.STAGES:
        for name in available(group):
            assert f"### `{name}`" in page
            assert f"| `{name}` |" in page


def test_parameters_are_read_from_a_docstring(table):
    text = """Do it.

    Parameters
    ----------
    first, second
        Lengths in mm. More about them.
    third
        Either ``a`` or :math:`|b|`.

    Raises
    ------
    ValueError
        Never.
    """
    lines = "\n".join(line.removeprefix("    ") for line in text.splitlines())
    assert dict(table.parameters(lines)) == {
        "first": "Lengths in mm",
        "second": "Lengths in mm",
        "third": r"Either `a` or $\|b\|$",
    }
