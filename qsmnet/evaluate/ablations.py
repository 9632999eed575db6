"""What each part of a network, or of its training data, is worth: short runs, the same items."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qsmnet.dipole import Kernel
from qsmnet.evaluate.case_study import Phantoms
from qsmnet.evaluate.ledger import Ledger, source_commit
from qsmnet.evaluate.metrics import score
from qsmnet.evaluate.table import markdown
from qsmnet.inversion.inverter import Inverter
from qsmnet.inversion.learned import LearnedInverter
from qsmnet.simulate.simulator import Simulator

#: What tells rows apart.
KEY = ("variant", "items", "item")
_COLUMNS = (*KEY, "nrmse", "reference_nrmse", "steps", "train_hours", "settings", "commit")


@dataclass(frozen=True)
class Ablation:
    """Runs that differ in one thing each, and what they are scored on.

    Parameters
    ----------
    variants
        By name, the settings of ``qsmnet train`` in which a run differs from ``common``.
    common
        Settings of all runs.
    items
        By name, what every variant is scored on and none has trained on.
    make
        The simulator of items.
    seed
        Of the items.
    folder
        ``results.csv`` and ``table.md``.
    """

    variants: Mapping[str, Sequence[str]]
    common: Sequence[str]
    items: Mapping[str, Phantoms]
    make: Callable[[Phantoms], Simulator]
    seed: int
    folder: Path

    @property
    def results(self) -> Ledger:
        """One row a variant and item."""
        return Ledger(self.folder / "results.csv", _COLUMNS, key=len(KEY))

    def settings(self, variant: str) -> list[str]:
        """Return the settings of a variant's run, its own last."""
        return [*self.common, *self.variants[variant]]

    def missing(self, variant: str) -> list[tuple[str, int]]:
        """Items, by name and number, that have no row yet."""
        there = set(self.results.rows())
        wanted = [(name, i) for name, each in self.items.items() for i in range(each.count)]
        return [(name, i) for name, i in wanted if (variant, name, str(i)) not in there]

    def score(
        self, variant: str, weights: Path, run: Mapping[str, object], reference: Inverter
    ) -> None:
        """Score the weights of a variant's run, beside a ``reference``, on what is missing.

        ``run`` has the columns ``steps``, ``train_hours`` and ``settings``.
        """
        for name, number in self.missing(variant):
            simulator = self.make(self.items[name])
            kernel: Kernel = simulator.acquisition.kernel
            scene = simulator.scene(self.seed, number)
            local = scene.as_local_field()
            truth, mask = scene.chi.numpy(), scene.mask.numpy()
            errors = [
                score(method(local).chi.numpy(), truth, mask)["nrmse"]
                for method in (LearnedInverter(str(weights), kernel), reference)
            ]
            nrmse, known = (f"{error:.6g}" for error in errors)
            row = {"variant": variant, "items": name, "item": number, "nrmse": nrmse}
            self.results.append({**row, "reference_nrmse": known, **run, "commit": source_commit()})


def summarise_ablation(study: Ablation) -> None:
    """Write ``table.md``: geometric means of NRMSE, and of its ratio to the reference's."""
    names = list(study.items)
    header = ["variant", "steps", "minutes", *names, *(f"{name}, ratio" for name in names)]
    rows = list(_summary(study, names))
    (study.folder / "table.md").write_text(markdown(header, rows), encoding="utf-8")


def _summary(study: Ablation, names: Sequence[str]) -> Iterator[list[str]]:
    rows = list(study.results.rows().values())
    for variant in study.variants:
        mine = [row for row in rows if row["variant"] == variant]
        if not mine or study.missing(variant):
            continue
        means, ratios = [], []
        for name in names:
            chosen = [row for row in mine if row["items"] == name]
            errors = [float(row["nrmse"]) for row in chosen]
            known = [float(row["reference_nrmse"]) for row in chosen]
            means.append(f"{_geometric_mean(errors):.1f}")
            ratios.append(f"{_geometric_mean(errors) / _geometric_mean(known):.3f}")
        minutes = f"{60 * float(mine[0]['train_hours']):.1f}"
        yield [variant, mine[0]["steps"], minutes, *means, *ratios]


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
