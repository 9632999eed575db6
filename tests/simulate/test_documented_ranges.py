"""The page of anatomy tells the ranges that are drawn from."""

import re
from pathlib import Path

import pytest

from qsmnet.simulate.contrast import IRON_RATES
from qsmnet.simulate.head.tissues import TISSUES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "anatomy.md").read_text("utf8")
ROWS = re.findall(
    r"^\| ([a-z ]+) \| (-?[\d.]+) to (-?[\d.]+) \| (-?[\d.]+) \|$", PAGE, re.MULTILINE
)


def test_all_tissue_is_told():
    assert {name for name, *_ in ROWS} >= {*IRON_RATES, "white matter", "grey matter", "thalamus"}


@pytest.mark.parametrize(("name", "low", "high", "mean"), ROWS)
def test_ranges_are_those_of_the_code(name, low, high, mean):
    assert (float(low), float(high)) == TISSUES[name].chi
    assert float(low) <= float(mean) <= float(high)


@pytest.mark.parametrize("name", ["caudate", "putamen", "globus pallidus"])
def test_rates_are_those_of_the_code(name):
    assert re.search(rf"\b{name}\s+{IRON_RATES[name]:.2f}", PAGE)
