"""Running a study of stages: rows that are not there yet, one method on one head each."""

from collections.abc import Callable, Sequence
from typing import Any

from qsmnet.errors import UsageError
from qsmnet.evaluate.cost import Measured, measure
from qsmnet.evaluate.heads import Scene
from qsmnet.evaluate.ledger import cells, check_known, source_commit
from qsmnet.evaluate.stage_study import ALONE, KEY, TABLES, TRUTH, StageStudy, Task, Wanted, named
from qsmnet.evaluate.stages import (
    Scores,
    map_echoes_alone,
    map_field,
    score_chi,
    score_local,
    score_mapping,
)

Say = Callable[[str], None]


def run_stages(study: StageStudy, wanted: Wanted, say: Say = lambda _: None) -> None:
    """Make the rows that are not there yet; those that failed are tried again.

    Heads are the outer loop. Several processes may share a folder: each looks again before a row.

    Raises
    ------
    UsageError
        If the split is ``test`` before the same was tried on the other, or a name is unknown.
    """
    _check_names(study, wanted)
    tasks = study.tasks(wanted)
    if wanted.split == "test":
        _check_chosen(study, tasks)
    commit = source_commit()
    for number in wanted.heads or study.splits[wanted.split]:
        for name in wanted.conditions or study.conditions:
            _run_head(study, wanted.split, number, name, tasks, commit, say)


def _run_head(
    study: StageStudy,
    split: str,
    number: int,
    condition: str,
    tasks: Sequence[Task],
    commit: str,
    say: Say,
) -> None:
    head = study.heads.name(number)
    scene: Scene | None = None
    for task in tasks:
        key = (task.table, head, condition, task.method, task.parameter)
        done = study.results.rows().get(key)
        if done is not None and not done["error"]:
            continue
        if scene is None:
            scan = study.heads.get(number, split, study.conditions[condition])
            scene = Scene(scan, **study.scene)
        measured, scores = _run_task(study, task, scene)
        row = dict(zip(KEY, key, strict=True)) | {"split": split, "commit": commit}
        study.results.append(row | cells(measured, scores))
        error = measured.error or f"{scores['nrmse']:.2f} %, {measured.seconds:.1f} s"
        say(f"{' '.join(key)}: {error}")


def _run_task(study: StageStudy, task: Task, scene: Scene) -> tuple[Measured[Any], Scores]:
    """Run and score; only the run is measured."""
    prepare, judge = _CALLS[task.table]
    try:
        call = prepare(study, task, scene)
    except Exception as failure:  # noqa: BLE001 - a method that cannot be built has its row too
        return Measured(None, " ".join(str(failure).split()), 0.0, 0.0), {}
    measured = measure(call)
    return measured, {} if measured.value is None else judge(scene, measured.value, task)


def _unwrap(study: StageStudy, task: Task, scene: Scene) -> Callable[[], Any]:
    stages = study.groups[task.table].mappings.get(task.method, {"unwrap": task.method})
    built = {group: study.tools.build(group, *named(each)) for group, each in stages.items()}
    if task.overrides:
        built["unwrap"] = study.tools.build("unwrap", task.method, task.overrides)
    scan, mask = scene.head.as_scan(), scene.head.mask
    run = map_echoes_alone if task.parameter == ALONE else map_field
    return lambda: run(scan, mask, **built)


def _background(study: StageStudy, task: Task, scene: Scene) -> Callable[[], Any]:
    method = study.tools.build("background", task.method, task.overrides)
    total = scene.total_field()
    return lambda: method(total)


def _invert(study: StageStudy, task: Task, scene: Scene) -> Callable[[], Any]:
    method = study.tools.build("inverter", task.method, task.overrides)
    if method.takes != "local_field":
        raise UsageError(task.method, f"takes {method.takes}", "name it in a pipeline, or skip it")
    local = scene.local_field()
    return lambda: method(local)


def _reconstruct(study: StageStudy, task: Task, scene: Scene) -> Callable[[], Any]:
    stages = study.pipelines[task.method]
    run = study.tools.pipeline(stages)
    mask = scene.head.mask if stages["mask"] == TRUTH else None
    scan = scene.head.as_scan()
    return lambda: run(scan, mask)


_CALLS: dict[str, tuple[Callable[..., Callable[[], Any]], Callable[..., Scores]]] = {
    "unwrap": (_unwrap, lambda scene, value, _: score_mapping(scene, value)),
    "background": (_background, lambda scene, value, _: score_local(scene, value)),
    "inverter": (
        _invert,
        lambda scene, value, task: score_chi(scene, value, detailed=task.detailed),
    ),
    "pipeline": (_reconstruct, lambda scene, value, _: score_chi(scene, value, whole=True)),
}


def _check_names(study: StageStudy, wanted: Wanted) -> None:
    methods = {task.method for task in study.tasks(Wanted(wanted.split))}
    known = {
        "--split": ([wanted.split], study.splits),
        "--conditions": (wanted.conditions, study.conditions),
        "--tables": (wanted.tables, TABLES),
        "--methods": (wanted.methods, sorted(methods)),
        "--heads": (wanted.heads, study.splits.get(wanted.split, ())),
    }
    check_known(known)


def _check_chosen(study: StageStudy, tasks: Sequence[Task]) -> None:
    """Defaults that are still to be chosen must not have seen the heads they are judged on."""
    tried = {
        (row["table"], row["method"])
        for row in study.results.rows().values()
        if row["split"] != "test"
    }
    missing = sorted(", ".join(key) for key in {(t.table, t.method) for t in tasks} - tried)
    if missing:
        problem = f"not tried on the other heads yet: {missing[0]} and {len(missing) - 1} more"
        raise UsageError("--split test", problem, "run --split choose to its end first")
