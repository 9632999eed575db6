"""Running a study of cases: rows that are not there yet, one method on one field each."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qsmnet.errors import NumericalError, UsageError
from qsmnet.evaluate.case_changes import changed
from qsmnet.evaluate.case_inputs import Case
from qsmnet.evaluate.case_scores import score_case
from qsmnet.evaluate.case_study import KEY, CaseStudy, row_error
from qsmnet.evaluate.cost import Measured, measure, one_line
from qsmnet.evaluate.descent import next_value
from qsmnet.evaluate.ledger import cells, check_known, source_commit
from qsmnet.evaluate.stage_study import Task
from qsmnet.evaluate.stages import Scores
from qsmnet.evaluate.subjects import Subject
from qsmnet.volumes import LocalField, Susceptibility

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """Some of a study; everything where None.

    Parameters
    ----------
    split
        Whose heads and phantoms.
    heads
        Numbers. Phantoms are left out where heads are chosen and their protocol is not.
    protocols, tables, methods
        Names.
    grids
        Whether grids are tried.
    """

    split: str = "choose"
    heads: Sequence[int] | None = None
    protocols: Sequence[str] | None = None
    tables: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    grids: bool = True


@dataclass(frozen=True)
class _Key:
    """A row that is to be made."""

    table: str
    input: str
    task: Task

    def of(self, protocol: str, item: str) -> tuple[str, ...]:
        """Cells that tell the row apart, in the order of `KEY`."""
        return self.table, protocol, item, self.input, self.task.method, self.task.parameter


def run_cases(study: CaseStudy, wanted: Wanted, say: Say = lambda _: None) -> None:
    """Make the rows that are not there yet; those that failed are tried again.

    Heads are the outer loop, then protocols. Several processes may share a folder: each looks again
    before a row.

    Raises
    ------
    UsageError
        If a name is unknown.
    """
    _check_names(study, wanted)
    commit = source_commit()
    for protocol, number in _places(study, wanted):
        _run_item(study, wanted, protocol, number, commit, say)


def _places(study: CaseStudy, wanted: Wanted) -> Iterator[tuple[str, int]]:
    chosen = wanted.protocols or [*study.protocols, *study.phantoms]
    for number in wanted.heads or study.splits[wanted.split]:
        yield from ((name, number) for name in chosen if name in study.protocols)
    if wanted.heads is None or wanted.protocols is not None:
        for name in chosen:
            if name in study.phantoms:
                yield from ((name, index) for index in range(study.phantoms[name].count))


def _run_item(
    study: CaseStudy, wanted: Wanted, protocol: str, number: int, commit: str, say: Say
) -> None:
    item = study.item(wanted.split, protocol, number)
    subject: Subject | None = None
    prepared: dict[tuple[str, str], Case | str] = {}
    for row in _rows(study, wanted, protocol, item):
        key = row.of(protocol, item)
        done = study.results.rows().get(key)
        if done is not None and not done["error"]:
            continue
        if subject is None:
            subject = study.subject(protocol, number, wanted.split)
        place = row.table, row.input
        if place not in prepared:
            # one field at a time is kept
            prepared = {place: _prepare(study, row, subject)}
        measured, scores = _run(study, row.task, prepared[place])
        named = dict(zip(KEY, key, strict=True)) | {"split": wanted.split, "commit": commit}
        study.results.append(named | cells(measured, scores))
        result = measured.error or f"{scores['nrmse']:.2f} %, {measured.seconds:.1f} s"
        say(f"{' | '.join(key)}: {result}")


def _rows(study: CaseStudy, wanted: Wanted, protocol: str, item: str) -> Iterator[_Key]:
    """Rows that are wanted; those of a grid depend on what came out of the ones before."""
    for name in wanted.tables or study.tables:
        table = study.tables[name]
        if protocol not in study.protocols_of(table):
            continue
        for each in study.inputs(table):
            for method in study.methods(table):
                if wanted.methods is not None and method not in wanted.methods:
                    continue
                keys = [_Key(name, each, task) for task in table.group.tasks(name, method)]
                yield from (key for key in keys if key.task.detailed)
                if wanted.grids:
                    grid = [key for key in keys if not key.task.detailed]
                    yield from _downhill(study, grid, protocol, item)


def _downhill(study: CaseStudy, grid: Sequence[_Key], protocol: str, item: str) -> Iterator[_Key]:
    """Values of a grid as `next_value` says, each when the one before has its row."""
    tried: set[int] = set()
    while True:
        rows = study.results.rows()
        errors = [row_error(rows.get(key.of(protocol, item))) for key in grid]
        # what failed is tried again, but not twice in the same run
        errors = [None if e == math.inf and i not in tried else e for i, e in enumerate(errors)]
        index = next_value(errors)
        if index is None:
            return
        tried.add(index)
        yield grid[index]


def _prepare(study: CaseStudy, row: _Key, subject: Subject) -> Case | str:
    """Make the case, or say in a line why it cannot be made: that belongs in its rows."""
    try:
        return study.tables[row.table].made_inputs[row.input].prepare(subject, study.tools)
    except Exception as failure:  # noqa: BLE001 whatever a stage raises
        return one_line(failure)


def _run(study: CaseStudy, task: Task, case: Case | str) -> tuple[Measured[Any], Scores]:
    """Invert and score; only the inversion is measured."""
    if isinstance(case, str):
        return Measured(None, case, 0.0, 0.0), {}
    try:
        method = _built(study, task, case)
    except Exception as failure:  # noqa: BLE001 a method that cannot be built has its row too
        return Measured(None, one_line(failure), 0.0, 0.0), {}
    given = changed(case.given, lambda volume: volume.to(study.device))
    measured = measure(lambda: _invert(task.method, method, given), study.device)
    if measured.value is None:
        return measured, {}
    return measured, score_case(case, measured.value, task.detailed)


def _built(study: CaseStudy, task: Task, case: Case) -> Callable[[LocalField], Susceptibility]:
    method: Any = study.tools.build("inverter", task.method, task.overrides)
    if method.takes != "local_field":
        raise UsageError(task.method, f"takes {method.takes}", "leave it out of the study")
    # the kernel that made a phantom's field is known to all who can use it
    if case.subject.kernel is not None and hasattr(method, "kernel"):
        method = replace(method, kernel=case.subject.kernel)
    if hasattr(method, "device"):
        method = replace(method, device=study.device)
    inverter: Callable[[LocalField], Susceptibility] = method
    return inverter


def _invert(
    name: str, method: Callable[[LocalField], Susceptibility], given: LocalField
) -> Susceptibility:
    found = method(given)
    if not bool(found.chi[found.mask].isfinite().all()):
        raise NumericalError(name, "gave NaN or infinity", "check the field and the parameters")
    return Susceptibility(found.chi.cpu(), found.mask.cpu())


def _check_names(study: CaseStudy, wanted: Wanted) -> None:
    methods = {method for table in study.tables.values() for method in study.methods(table)}
    known: dict[str, tuple[Sequence[Any] | None, Sequence[Any]]] = {
        "--split": ([wanted.split], list(study.splits)),
        "--protocols": (wanted.protocols, [*study.protocols, *study.phantoms]),
        "--tables": (wanted.tables, list(study.tables)),
        "--methods": (wanted.methods, sorted(methods)),
        "--heads": (wanted.heads, study.splits.get(wanted.split, ())),
    }
    check_known(known)
