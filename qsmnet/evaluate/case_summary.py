"""Who wins: tables of a study of cases, from its rows."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qsmnet.evaluate.case_scores import REGIONS
from qsmnet.evaluate.case_study import CaseStudy, Table, row_error
from qsmnet.evaluate.descent import next_value
from qsmnet.evaluate.stage_study import DEFAULT
from qsmnet.evaluate.table import markdown
from qsmnet.io.files import write_text

Row = Mapping[str, str]
#: Rows of one method, by item.
Rows = dict[str, Row]

_SCORES: dict[str, tuple[str, int]] = {
    "nrmse": ("NRMSE / %", 1),
    "xsim": ("XSIM", 3),
    "slope": ("slope", 3),
    "nrmse_inner": ("without the rim / %", 1),
    "nrmse_tissue": ("tissue / %", 1),
    "nrmse_dgm": ("nuclei / %", 1),
    "nrmse_blood": ("blood / %", 1),
    "dgm_slope": ("nuclei: slope", 3),
    "dgm_linearity": ("nuclei: slope's error", 3),
    "bleed_ratio": ("bleed / true", 3),
    "calcification_ratio": ("calcification / true", 3),
    "coverage": ("coverage", 3),
    "seconds": ("seconds", 1),
}


@dataclass(frozen=True)
class Entry:
    """One line of a table: a method with its default, or with the best of its grid."""

    method: str
    parameter: str
    rows: Rows
    learned: bool
    tuned: bool = False

    def mean(self, column: str) -> float:
        """Mean over items where the score is defined."""
        return _mean(row[column] for row in self.rows.values())


@dataclass(frozen=True)
class Place:
    """Entries of one protocol and input of a table."""

    protocol: str
    input: str
    entries: Sequence[Entry]

    @property
    def learned(self) -> list[Entry]:
        """Learned methods."""
        return [entry for entry in self.entries if entry.learned]

    @property
    def classical(self) -> list[Entry]:
        """Classical methods: of each the best of its grid, or its default where it has none."""
        others = [entry for entry in self.entries if not entry.learned]
        tuned = {entry.method for entry in others if entry.tuned}
        return [e for e in others if e.tuned or (e.method not in tuned and e.parameter == DEFAULT)]

    @property
    def best_by_item(self) -> dict[str, float]:
        """Lowest NRMSE of all classical methods, item by item."""
        best: dict[str, float] = {}
        for entry in self.classical:
            for item, row in entry.rows.items():
                best[item] = min(best.get(item, math.inf), float(row["nrmse"]))
        return best

    def ratio(self, entry: Entry) -> float:
        """Mean over items of the NRMSE over that of the best classical method there."""
        best = self.best_by_item
        return _mean(
            str(float(row["nrmse"]) / best[item])
            for item, row in entry.rows.items()
            if best.get(item)
        )

    @property
    def complete(self) -> bool:
        """Whether all that is compared has seen the same items."""
        return len({frozenset(e.rows) for e in [*self.learned, *self.classical]}) <= 1


def summarise_cases(study: CaseStudy, split: str) -> None:
    """Write ``table.md``, the other split's as ``table_test.md``."""
    name = "table.md" if split == "choose" else f"table_{split}.md"
    write_text(study.folder / name, case_tables(study, split), overwrite=True)


def case_tables(study: CaseStudy, split: str) -> str:
    """Means over heads and volumes of a split: who wins, then every score."""
    parts = [_caption(study, split)]
    for name, table in study.tables.items():
        places = [place for place in places_of(study, name, split) if place.entries]
        if places:
            parts.append(f"## {table.title}\n\n{_verdicts(places)}")
            parts += [_changes(places)] if table.against_first else []
            parts += [_details(table, place) for place in places]
    failures = _failures(study, split)
    return "\n".join([*parts, failures] if failures else parts)


def places_of(study: CaseStudy, name: str, split: str) -> list[Place]:
    """Entries of every protocol and input of a table."""
    table = study.tables[name]
    rows = {key: row for key, row in study.results.rows().items() if row["split"] == split}
    places = []
    for protocol in study.protocols_of(table):
        items = study.items(split, protocol)
        for given in study.inputs(table):
            found: dict[tuple[str, str], Rows] = {}
            for item in items:
                for task in study.tasks(name):
                    row = rows.get((name, protocol, item, given, task.method, task.parameter))
                    if row is not None:
                        found.setdefault((task.method, task.parameter), {})[item] = row
            entries = [e for m in study.methods(table) for e in _entries(study, table, m, found)]
            places.append(Place(protocol, given, entries))
    return places


def _entries(
    study: CaseStudy, table: Table, method: str, found: Mapping[tuple[str, str], Rows]
) -> list[Entry]:
    learned = method in study.learned
    entries = []
    for parameter in (DEFAULT, *table.variants):
        rows = found.get((method, parameter), {})
        through = {item: row for item, row in rows.items() if not row["error"]}
        entries += [Entry(method, parameter, through, learned)] if through else []
    grid = table.group.grid(method)
    # the default is one of the values: tuning never makes it worse
    tried = [DEFAULT, *grid] if grid else []
    best = _best_by_item([found.get((method, value), {}) for value in tried])
    if best:
        values = sorted({row["parameter"] for row in best.values()}, key=tried.index)
        # an end of the grid may not be the best there is
        ends = " (an end)" if {grid[0], grid[-1]} & set(values) else ""
        name = f"best of {len(tried)}: {', '.join(values)}{ends}"
        entries.append(Entry(method, name, best, learned, tuned=True))
    return entries


def _best_by_item(tried: Sequence[Rows]) -> Rows:
    """Row with the lowest error of each item that has its default and the grid's best value."""
    if not tried:
        return {}
    default, *grid = tried
    found: Rows = {}
    for item in sorted(default):
        if next_value([row_error(rows.get(item)) for rows in grid]) is None:
            mine = [rows[item] for rows in tried if item in rows and not rows[item]["error"]]
            found |= {item: min(mine, key=lambda row: float(row["nrmse"]))} if mine else {}
    return found


def _verdicts(places: Sequence[Place]) -> str:
    """One line a protocol and input: best classical method, every learned one, the winner."""
    names = list(dict.fromkeys(entry.method for place in places for entry in place.learned))
    header = ["protocol, input", "cases", "best classical", "NRMSE / %", "best case by case / %"]
    header += [f"{name} / % (ratio)" for name in names]
    return markdown([*header, "winner"], [_verdict(place, names) for place in places])


def _verdict(place: Place, names: Sequence[str]) -> list[str]:
    ranked = sorted(place.classical, key=lambda entry: entry.mean("nrmse"))
    counts = sorted({len(entry.rows) for entry in [*place.learned, *place.classical]})
    cells = [f"{place.protocol}, {place.input}", " to ".join(map(str, counts))]
    cells += [ranked[0].method, _number(ranked[0].mean("nrmse"), 1)] if ranked else ["–", "–"]
    cells.append(_number(_mean(map(str, place.best_by_item.values())), 1))
    learned = {entry.method: entry for entry in place.learned if entry.parameter == DEFAULT}
    for name in names:
        entry = learned.get(name)
        cells.append("–" if entry is None else _with_ratio(place, entry))
    contest = [*ranked[:1], *learned.values()]
    winner = min(contest, key=lambda entry: entry.mean("nrmse")).method if contest else "–"
    # means over other cases are no contest
    return [*cells, winner if place.complete else "not all cases yet"]


def _with_ratio(place: Place, entry: Entry) -> str:
    return f"{_number(entry.mean('nrmse'), 1)} ({_number(place.ratio(entry), 2)})"


def _changes(places: Sequence[Place]) -> str:
    """Mean over cases of the NRMSE over that of the first input of the protocol."""
    shown = list(dict.fromkeys((e.method, e.parameter) for p in places for e in p.entries))
    first: dict[str, Place] = {}
    rows = []
    for place in places:
        base = first.setdefault(place.protocol, place)
        cells = [_change(place, base, method, parameter) for method, parameter in shown]
        rows.append([f"{place.protocol}, {place.input}", *cells])
    names = [
        method if parameter == DEFAULT else f"{method}, {parameter}" for method, parameter in shown
    ]
    return f"\nNRMSE over that of the first\n\n{markdown(['protocol, input', *names], rows)}"


def _change(place: Place, base: Place, method: str, parameter: str) -> str:
    rows, before = (
        {
            item: row
            for e in p.entries
            if (e.method, e.parameter) == (method, parameter)
            for item, row in e.rows.items()
        }
        for p in (place, base)
    )
    return _number(
        _mean(
            str(float(rows[i]["nrmse"]) / float(before[i]["nrmse"])) for i in rows if i in before
        ),
        3,
    )


def _details(table: Table, place: Place) -> str:
    """Every score of every entry, and the regions where there are any."""
    columns = {
        name: shown
        for name, shown in _SCORES.items()
        if any(not math.isnan(entry.mean(name)) for entry in place.entries)
    }
    header = ["method", "parameters", "cases", *(title for title, _ in columns.values())]
    rows = [[e.method, e.parameter, str(len(e.rows)), *_cells(e, columns)] for e in place.entries]
    parts = [f"\n### {table.title}: {place.protocol}, {place.input}\n\n{markdown(header, rows)}"]
    return "\n".join(parts) + _regions(place)


def _regions(place: Place) -> str:
    """Mean error and rmse of each region in ppb."""
    shown = [e for e in place.entries if not math.isnan(e.mean("rmse_white_matter"))]
    if not shown:
        return ""
    header = [
        "mean error (rmse) / ppb",
        *(f"{e.method}, {'best' if e.tuned else e.parameter}" for e in shown),
    ]
    rows = [
        [name.replace("_", " "), *(_region(entry, name) for entry in shown)]
        for name in REGIONS.values()
    ]
    return f"\n{markdown(header, rows)}"


def _region(entry: Entry, name: str) -> str:
    bias, rmse = (1000 * entry.mean(f"{kind}_{name}") for kind in ("bias", "rmse"))
    return "–" if math.isnan(rmse) else f"{bias:+.1f} ({rmse:.1f})"


def _failures(study: CaseStudy, split: str) -> str:
    rows = study.results.rows().values()
    lines = sorted(
        f"- {row['table']}, {row['protocol']}, {row['item']}, {row['input']}, {row['method']},"
        f" {row['parameter']}: {row['error']}\n"
        for row in rows
        if row["error"] and row["split"] == split
    )
    return f"## Failed\n\n{''.join(lines)}" if lines else ""


def _caption(study: CaseStudy, split: str) -> str:
    heads = ", ".join(study.heads.name(number) for number in study.splits[split])
    rows = [row for row in study.results.rows().values() if row["split"] == split]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    return (
        f"Means over the cases of split `{split}` (heads {heads}; seed {study.heads.seed}); commit"
        f" {commits}. A classical method is shown with its default and with the best of its values,"
        f" case by case, which only the truth can tell. The ratio is the mean over cases of a"
        f" learned method's NRMSE over that of the best classical method of the case.\n"
    )


def _cells(entry: Entry, columns: Mapping[str, tuple[str, int]]) -> list[str]:
    return [_number(entry.mean(name), digits) for name, (_, digits) in columns.items()]


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _mean(values: Iterable[str]) -> float:
    numbers = [float(value) for value in values if value]
    numbers = [number for number in numbers if not math.isnan(number)]
    return statistics.fmean(numbers) if numbers else math.nan
