"""Tables and the curve of a study, from its rows."""

import math
import statistics
from collections.abc import Iterable, Sequence

from qsmnet.evaluate.figures import spectrum_panels
from qsmnet.evaluate.save import save_figure
from qsmnet.evaluate.spectrum import ErrorSpectrum
from qsmnet.evaluate.study import SPECTRUM, Study
from qsmnet.evaluate.table import markdown
from qsmnet.io.files import write_text

Row = dict[str, str]

_TABLES = {
    "nrmse": ("NRMSE / %", 1),
    "xsim": ("XSIM", 3),
    "hfen": ("HFEN / %", 1),
    "seconds": ("seconds", 1),
    "peak_memory_mib": ("peak memory / MiB", 0),
}


def summarise(study: Study) -> None:
    """Write ``table.md`` (medians over brains) and ``spectrum.png`` (median curves)."""
    write_text(study.folder / "table.md", study_tables(study), overwrite=True)
    figure = spectrum_panels(median_curves(study))
    save_figure(study.folder / "spectrum.png", figure, overwrite=True)


def study_tables(study: Study) -> str:
    """Medians over brains, one table a score, then the parameters that were chosen."""
    parts = [_caption(study)]
    for score, (title, digits) in _TABLES.items():
        rows = [_row(study, name, score, digits) for name in study.conditions]
        header = ["condition", "brains", *study.methods]
        parts.append(f"## {title}\n\n{markdown(header, [r for r in rows if r[1] != '0'])}")
    return "\n".join([*parts, _chosen(study)])


def median_curves(study: Study) -> dict[str, dict[str, ErrorSpectrum]]:
    """Median relative error over |D| by condition and method."""
    edges = tuple(2 / 3 * i / len(SPECTRUM) for i in range(len(SPECTRUM) + 1))
    curves: dict[str, dict[str, ErrorSpectrum]] = {}
    for condition in study.conditions:
        for method in study.methods:
            rows = _rows(study, condition, method)
            if rows:
                error = tuple(_median(row[column] for row in rows) for column in SPECTRUM)
                curves.setdefault(condition, {})[method] = ErrorSpectrum(edges, error)
    return curves


def _rows(study: Study, condition: str, method: str) -> list[Row]:
    """Rows of the study's brains that did not fail."""
    rows = study.results.rows()
    keys = [(condition, str(brain), method) for brain in study.brains]
    return [rows[key] for key in keys if key in rows and not rows[key]["error"]]


def _row(study: Study, condition: str, score: str, digits: int) -> list[str]:
    cells, counts = [], []
    for method in study.methods:
        values = [row[score] for row in _rows(study, condition, method)]
        counts.append(len(values))
        cells.append(f"{_median(values):.{digits}f}" if values else "–")
    # methods of one row must have seen the same brains to be compared
    count = f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else str(counts[0])
    return [condition, count, *cells]


def _caption(study: Study) -> str:
    brains, others = list(study.brains), list(study.choose_brains)
    lines = [
        f"Medians over simulated brains {brains[0]} to {brains[-1]} of split `test`, seed"
        f" {study.seed}; parameters chosen on brains {others[0]} to {others[-1]} of `choose`.\n"
    ]
    for name, each in study.conditions.items():
        size, grid = _times(each.voxel_size), _times(each.shape)
        direction = ", ".join(f"{component:.3g}" for component in each.b0_dir)
        lines.append(
            f"- **{name}**: {grid} voxels of {size} mm, B0 along ({direction}), noise"
            f" {each.noise:g} ppm, made with the {each.making} and inverted with the"
            f" {each.inverting} kernel\n"
        )
    return "\n".join((lines[0], "".join(lines[1:])))


def _chosen(study: Study) -> str:
    rows = [
        [condition, *_parameters(study, condition)]
        for condition in study.conditions
        if any(_rows(study, condition, method) for method in study.methods)
    ]
    return f"## Parameters\n\n{markdown(['condition', *study.methods], rows)}"


def _parameters(study: Study, condition: str) -> list[str]:
    found = (_rows(study, condition, method) for method in study.methods)
    return [rows[-1]["parameters"] if rows else "–" for rows in found]


def _times(values: Sequence[float] | Sequence[int]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _median(values: Iterable[str]) -> float:
    numbers = [float(value) for value in values if value and not math.isnan(float(value))]
    return statistics.median(numbers) if numbers else math.nan
