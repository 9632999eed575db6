"""Tables of a study of stages, from its rows."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from qsmnet.evaluate.stage_study import ALONE, DEFAULT, TABLES, Group, StageStudy
from qsmnet.evaluate.table import markdown
from qsmnet.io.files import write_text

Row = Mapping[str, str]
#: By method and parameter, the rows of one table and condition by head.
Found = dict[tuple[str, str], dict[str, Row]]

_TITLES = {
    "unwrap": "Unwrapping and field mapping, from wrapped phase",
    "background": "Background removal, from the true noisy total field",
    "inverter": "Inversion, from the true noisy local field",
    "pipeline": "Whole pipelines, from wrapped phase",
}
_COLUMNS: dict[str, dict[str, tuple[str, int]]] = {
    "unwrap": {
        "wrong": ("2 pi off / %", 3),
        "wrong_near_air": ("2 pi off near air / %", 2),
        "nrmse": ("field NRMSE / %", 1),
        "nrmse_near_air": ("near air / %", 1),
    },
    "background": {
        "nrmse": ("NRMSE / %", 1),
        "slope": ("slope", 3),
        "kept": ("mask kept / %", 1),
        "coverage": ("common mask known / %", 1),
    },
    "inverter": {"nrmse": ("NRMSE / %", 1), "xsim": ("XSIM", 3), "slope": ("slope", 3)},
    "pipeline": {
        "nrmse": ("NRMSE / %", 1),
        "nrmse_inner": ("without the rim / %", 1),
        "xsim": ("XSIM", 3),
        "slope": ("slope", 3),
        "coverage": ("coverage", 3),
    },
}
_COST = {"seconds": ("seconds", 1), "peak_memory_mib": ("peak memory / MiB", 0)}


def summarise_stages(study: StageStudy, split: str) -> None:
    """Write ``table.md``, the other split's as ``table_test.md``."""
    name = "table.md" if split == "choose" else f"table_{split}.md"
    write_text(study.folder / name, stage_tables(study, split), overwrite=True)


def stage_tables(study: StageStudy, split: str) -> str:
    """Medians over the heads of a split, one table a stage and condition."""
    parts = [_caption(study, split)]
    for table in TABLES:
        for condition in study.conditions:
            found = _found(study, split, table, condition)
            if found:
                parts.append(f"## {_TITLES[table]}: {condition}\n")
                parts.append(_table(study, table, found))
    return "\n".join(parts)


def _table(study: StageStudy, table: str, found: Found) -> str:
    group = study.groups.get(table, Group())
    columns = {**_COLUMNS[table], **_COST}
    header = ["method", "parameters", "heads", *(title for title, _ in columns.values())]
    rows = [
        [method, parameter, *_cells(rows, columns)]
        for (method, parameter), rows in _shown(group, found).items()
    ]
    text = markdown(header, rows)
    return text + _against_best(group, found) + _failures(found)


def _shown(group: Group, found: Found) -> dict[tuple[str, str], dict[str, Row]]:
    """Rows of the table: defaults, variants, and the best of the grid by head."""
    shown: dict[tuple[str, str], dict[str, Row]] = {}
    for method in sorted({method for method, _ in found}):
        grid = group.grid(method)
        # what an earlier config has tried stays in the rows, not in the table
        shown |= {
            (method, parameter): found[method, parameter]
            for parameter in (DEFAULT, *group.variants, ALONE)
            if (method, parameter) in found
        }
        best = _best_by_head(found, method, grid)
        if best:
            values = sorted({row["parameter"] for row in best.values()}, key=grid.index)
            shown[method, f"best of {len(grid)}: {', '.join(values)}"] = best
    return shown


def _best_by_head(found: Found, method: str, grid: Sequence[str]) -> dict[str, Row]:
    """Row with the lowest error of each head on which the whole grid was tried."""
    tried = [found.get((method, value), {}) for value in grid]
    heads = set.intersection(*(set(rows) for rows in tried)) if tried else set()
    return {
        head: min(
            (rows[head] for rows in tried if not rows[head]["error"]),
            key=lambda row: float(row["nrmse"]),
        )
        for head in sorted(heads)
        if any(not rows[head]["error"] for rows in tried)
    }


def _against_best(group: Group, found: Found) -> str:
    """How far defaults and variants are above the best of the grid: median and worst over heads."""
    rows = []
    for method in group.grids:
        best = _best_by_head(found, method, group.grid(method))
        for parameter in (DEFAULT, *group.variants):
            ratios = [
                100 * (float(row["nrmse"]) / float(best[head]["nrmse"]) - 1)
                for head, row in found.get((method, parameter), {}).items()
                if head in best and not row["error"]
            ]
            if ratios:
                rows.append(
                    [method, parameter, f"{statistics.median(ratios):+.1f}", f"{max(ratios):+.1f}"]
                )
    if not rows:
        return ""
    title = "NRMSE above the best of the grid / %: median over heads, worst"
    return f"\n{title}\n\n{markdown(['method', 'parameters', 'median', 'worst'], rows)}"


def _failures(found: Found) -> str:
    lines = sorted(
        {
            f"- **{method}, {parameter}, failed**: {row['error']}\n"
            for (method, parameter), rows in found.items()
            for row in rows.values()
            if row["error"]
        }
    )
    return "\n" + "".join(lines) if lines else ""


def _found(study: StageStudy, split: str, table: str, condition: str) -> Found:
    heads = [study.heads.name(number) for number in study.splits[split]]
    found: Found = {}
    for (kind, head, under, method, parameter), row in study.results.rows().items():
        if (kind, under) == (table, condition) and head in heads:
            found.setdefault((method, parameter), {})[head] = row
    return found


def _cells(rows: Mapping[str, Row], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    good = [row for row in rows.values() if not row["error"]]
    return [str(len(good)), *(_cell(good, name, digits) for name, (_, digits) in columns.items())]


def _cell(rows: Sequence[Row], name: str, digits: int) -> str:
    value = _median(rows, name)
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _median(rows: Iterable[Row], name: str) -> float:
    numbers = [float(row[name]) for row in rows if row[name]]
    numbers = [number for number in numbers if not math.isnan(number)]
    return statistics.median(numbers) if numbers else math.nan


def _caption(study: StageStudy, split: str) -> str:
    heads = ", ".join(study.heads.name(number) for number in study.splits[split])
    rows = [row for row in study.results.rows().values() if row["split"] == split]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    of = f"split `{split}`, seed {study.heads.seed}"
    lines = [f"Medians over heads {heads} ({of}); commit {commits}.\n"]
    for name, condition in study.conditions.items():
        lines.append(
            f"- **{name}**: {_described(study, condition.protocol)}{_lesions(study, name)}"
        )
    return "\n".join(lines) + "\n"


def _described(study: StageStudy, name: str) -> str:
    protocol = study.heads.protocols[name]
    size, grid = (
        " x ".join(f"{v:g}" for v in each) for each in (protocol.voxel_size, protocol.shape)
    )
    times = ", ".join(f"{1000 * time:g}" for time in protocol.echo_times)
    tilt = f"{protocol.geometry.tilt_degrees:.0f} degrees"
    return (
        f"{grid} voxels of {size} mm, {protocol.b0:g} T tilted by {tilt},"
        f" echoes at {times} ms, SNR {protocol.snr:g}"
    )


def _lesions(study: StageStudy, name: str) -> str:
    lesions = [
        f"{each['chi']:+g} ppm of radius {each['radius']:g} mm"
        for each in study.conditions[name].lesions
    ]
    return f", with lesions of {' and '.join(lesions)}" if lesions else ""
