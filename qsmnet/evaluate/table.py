"""Results as CSV for programs and as Markdown for people."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from qsmnet.evaluate.compare import Result
from qsmnet.evaluate.metrics import SCORES
from qsmnet.evaluate.regions import Region

_COST = ("seconds", "peak_memory_mib")
#: Digits after the point that mean something in a table.
_DIGITS = {"correlation": 3, "xsim": 3, "coverage": 3, "dgm_linearity": 3, "seconds": 2}
_DIGITS |= {"peak_memory_mib": 0, "calc_streak": 3, "calc_moment_dev": 2}


def metrics_csv(results: Sequence[Result]) -> str:
    """One row an inverter: QSM-CI's metric names, ``seconds``, ``peak_memory_mib``, ``error``.

    Numbers have all their digits; a score that is not defined is ``nan``, those of a method that
    failed are empty.
    """
    columns = _columns(results)
    rows: list[Sequence[object]] = [["inverter", *columns, "error"]]
    rows += [[r.inverter, *(_value(r, name) for name in columns), r.error] for r in results]
    return csv_text(rows)


def metrics_markdown(results: Sequence[Result]) -> str:
    """Markdown table of the same rows, rounded; a method that failed says so."""
    columns = _columns(results)
    rows = [[r.inverter, *(_shown(r, name) for name in columns)] for r in results]
    table = markdown(["inverter", *columns], rows)
    failures = [f"- **{r.inverter} failed**: {r.error}\n" for r in results if r.error]
    warnings = [f"- {r.inverter}: {flag}\n" for r in results for flag in r.flags]
    notes = failures + warnings
    return table + ("\n" + "".join(notes) if notes else "")


def shown_rows(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rounded cells, for a table on a terminal."""
    columns = [name for name in _columns(results) if name in {"nrmse", "hfen", "xsim", *_COST}]
    return ["inverter", *columns], [
        [r.inverter, *(_shown(r, name) for name in columns)] for r in results
    ]


def spectrum_csv(results: Sequence[Result]) -> str:
    """Relative error over |D|: one row a bin, one column a method."""
    curves = {r.inverter: r.spectrum for r in results if r.spectrum is not None}
    if not curves:
        return csv_text([["d_low", "d_high"]])
    edges = next(iter(curves.values())).edges
    rows: list[Sequence[object]] = [["d_low", "d_high", *curves]]
    for i, (low, high) in enumerate(pairwise(edges)):
        rows.append([f"{low:.6g}", f"{high:.6g}", *(curve.error[i] for curve in curves.values())])
    return csv_text(rows)


def regions_csv(regions: Mapping[str, Sequence[Region]]) -> str:
    """Statistics of every map (and the truth) in every region, in ppm."""
    rows: list[Sequence[object]] = [
        ["map", "label", "region", "voxels", "mean", "standard_deviation", "median"]
    ]
    for name, each in regions.items():
        for r in each:
            numbers = (f"{v:.6g}" for v in (r.mean, r.standard_deviation, r.median))
            rows.append([name, r.label, r.name, r.voxels, *numbers])
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV with plain line ends."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = (" | ".join(cells) for cells in (header, rule, *rows))
    return "".join(f"| {line} |\n" for line in lines)


def _columns(results: Sequence[Result]) -> list[str]:
    present = {name for result in results for name in result.scores}
    return [*(name for name in SCORES if name in present), *_COST]


def _value(result: Result, name: str) -> object:
    if name in _COST:
        return getattr(result, name)
    return result.scores.get(name, "")


def _shown(result: Result, name: str) -> str:
    value = _value(result, name)
    if not isinstance(value, float):
        return "failed"
    return "–" if math.isnan(value) else f"{value:.{_DIGITS.get(name, 1)}f}"
