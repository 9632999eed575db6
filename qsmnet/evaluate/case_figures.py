"""Curves of a study of cases: a score over what was varied, and the error over the kernel."""

import math
import statistics
from collections.abc import Sequence

from qsmnet.evaluate.case_scores import SPECTRUM
from qsmnet.evaluate.case_study import CaseStudy, Table
from qsmnet.evaluate.case_summary import Entry, Place, places_of
from qsmnet.evaluate.figures import spectrum_panels, sweep_figure
from qsmnet.evaluate.save import save_figure
from qsmnet.evaluate.spectrum import ErrorSpectrum

_EDGES = tuple(2 / 3 * i / len(SPECTRUM) for i in range(len(SPECTRUM) + 1))
_LABELS = {
    "nrmse": "NRMSE / %",
    "nrmse_inner": "NRMSE without the rim / %",
    "bleed_ratio": "mean of the source over its truth",
    "calcification_ratio": "mean of the source over its truth",
}


def draw_cases(study: CaseStudy, split: str) -> None:
    """Write ``TABLE.png`` and ``TABLE_spectrum.png`` of each table that asks for them.

    Those of another split than ``choose`` have its name in front of ``.png``. Means over items, of
    learned methods and of classical ones, these with the best of their values where they have some.
    """
    end = ".png" if split == "choose" else f"_{split}.png"
    for name, table in study.tables.items():
        places = [place for place in places_of(study, name, split) if place.entries]
        if places and table.axis:
            label = _LABELS.get(table.scores[0], table.scores[0])
            curves = sweep_curves(table, places)
            figure = sweep_figure(curves, table.axis, label, table.title)
            save_figure(study.folder / f"{name}{end}", figure, overwrite=True)
        if places and table.spectrum:
            figure = spectrum_panels(spectra(places))
            save_figure(study.folder / f"{name}_spectrum{end}", figure, overwrite=True)


def sweep_curves(table: Table, places: Sequence[Place]) -> dict[str, dict[float, float]]:
    """By method, the mean score at each position; what has no position is left out."""
    curves: dict[str, dict[float, float]] = {}
    for place in places:
        position = table.positions.get(place.input, table.positions.get(place.protocol))
        for entry in [*place.learned, *place.classical]:
            value = _score(entry, table.scores)
            if position is not None and not math.isnan(value):
                curves.setdefault(entry.method, {})[position] = value
    return curves


def spectra(places: Sequence[Place]) -> dict[str, dict[str, ErrorSpectrum]]:
    """By protocol and input, each method's mean relative error over the kernel's magnitude."""
    panels: dict[str, dict[str, ErrorSpectrum]] = {}
    for place in places:
        # the best of a grid is not scored over the kernel
        for entry in (e for e in place.entries if not e.tuned):
            curve = ErrorSpectrum(_EDGES, tuple(entry.mean(column) for column in SPECTRUM))
            panels.setdefault(f"{place.protocol}, {place.input}", {})[entry.method] = curve
    return panels


def _score(entry: Entry, columns: Sequence[str]) -> float:
    means = [entry.mean(column) for column in columns]
    known = [mean for mean in means if not math.isnan(mean)]
    return statistics.fmean(known) if known else math.nan
