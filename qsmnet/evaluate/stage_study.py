"""Every stage of the classical pipeline on simulated heads, one row a method and head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qsmnet.evaluate.heads import TINY, Condition, Heads
from qsmnet.evaluate.ledger import Ledger
from qsmnet.evaluate.metrics import SCORES
from qsmnet.evaluate.tools import Tools

#: The tables, in the order of the pipeline; all but the last are config groups.
TABLES = ("unwrap", "background", "inverter", "pipeline")
DEFAULT = "default"
ALONE = "echoes alone, unweighted"
#: In place of a mask's name: the simulated brain.
TRUTH = "truth"

#: What tells rows apart.
KEY = ("table", "head", "condition", "method", "parameter")
_OWN = ("wrong", "wrong_near_air", "nrmse_near_air", "nrmse_inner", "slope", "kept")
_COLUMNS = (*KEY, "split", "seconds", "peak_memory_mib", "error", *SCORES, *_OWN, "commit")


@dataclass(frozen=True)
class Group:
    """What is tried of a config group.

    Parameters
    ----------
    skip
        Methods that are left out.
    variants
        By name of the variant and of the method, overrides beside its defaults.
    grids
        By method, one parameter and at most 7 values; the best of them is an oracle.
    fixed
        By method, overrides that every value of its grid comes with.
    alone
        Unwrappings that are also tried on each echo alone.
    mappings
        By name, ``unwrap`` together with ``offset``, ``fit``: see `named`.
    """

    skip: Sequence[str] = ()
    variants: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    fixed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    alone: Sequence[str] = ()
    mappings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(len(values) > 7 for grid in self.grids.values() for values in grid.values()):
            raise ValueError("a grid has at most 7 values")

    def parameters(self, method: str) -> dict[str, list[str]]:
        """By the name of the row, overrides of the method."""
        found: dict[str, list[str]] = {DEFAULT: []}
        for name, methods in self.variants.items():
            if method in methods:
                found[name] = list(methods[method])
        fixed = list(self.fixed.get(method, ()))
        return found | {each: [*fixed, each] for each in self.grid(method)}

    def tasks(self, table: str, method: str) -> "Iterator[Task]":
        """Rows of a method."""
        grid = set(self.grid(method))
        for parameter, overrides in self.parameters(method).items():
            yield Task(table, method, parameter, overrides, parameter not in grid)
        if method in self.alone:
            yield Task(table, method, ALONE)

    def grid(self, method: str) -> list[str]:
        """Values of the method's grid as overrides."""
        grid = self.grids.get(method, {})
        return [f"{name}={value}" for name, values in grid.items() for value in values]


def named(stage: str | Sequence[str]) -> tuple[str, list[str]]:
    """Name and overrides of a stage, which is a name or a list of it and overrides."""
    name, *overrides = [stage] if isinstance(stage, str) else stage
    return name, overrides


@dataclass(frozen=True)
class Task:
    """One row that is to be made."""

    table: str
    method: str
    parameter: str
    overrides: Sequence[str] = ()
    detailed: bool = True


@dataclass(frozen=True)
class StageStudy:
    """Question, heads, methods and where the answers go.

    Parameters
    ----------
    conditions
        By name.
    splits
        By name, the heads' numbers.
    groups
        By config group.
    pipelines
        By name, what each stage is.
    scene
        `Scene`'s near_air, margin and erosion.
    heads
        Where heads come from.
    tools
        Where methods come from.
    folder
        ``results.csv``, ``table.md``.
    """

    conditions: Mapping[str, Condition]
    splits: Mapping[str, Sequence[int]]
    groups: Mapping[str, Group]
    pipelines: Mapping[str, Mapping[str, Any]]
    scene: Mapping[str, Any]
    heads: Heads
    tools: Tools
    folder: Path

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        tools: Tools,
        folder: Path,
        labels: Path | None = None,
        cache: Path | None = None,
    ) -> "StageStudy":
        """Study of a ``config.yaml``; heads of the label maps in ``labels``, kept in ``cache``."""
        conditions = {n: Condition(n, **each) for n, each in config["conditions"].items()}
        names = {each.protocol for each in conditions.values()}
        protocols = {name: tools.build("protocol", name, ()) for name in names}
        simulator = tools.build("simulator", "head", ())
        return cls(
            conditions=conditions,
            splits=config["heads"],
            groups={name: Group(**(config.get(name) or {})) for name in TABLES[:-1]},
            pipelines=config["pipeline"],
            scene=config["scene"],
            heads=Heads(simulator, protocols, config["seed"], labels, cache),
            tools=tools,
            folder=folder,
        )

    def smoke(self) -> "StageStudy":
        """One tiny head a split, two conditions, two values a grid: does it run."""
        conditions = {n: replace(c, protocol="tiny") for n, c in self.conditions.items()}
        kinds = {each.kind: name for name, each in conditions.items()}
        groups = {
            name: replace(
                group,
                grids={
                    method: {key: values[:2] for key, values in grid.items()}
                    for method, grid in group.grids.items()
                },
            )
            for name, group in self.groups.items()
        }
        return replace(
            self,
            conditions={name: conditions[name] for name in kinds.values()},
            splits={split: numbers[:1] for split, numbers in self.splits.items()},
            groups=groups,
            heads=replace(self.heads, protocols={"tiny": TINY}),
        )

    @property
    def results(self) -> Ledger:
        """One row a table, head, condition, method and parameter."""
        return Ledger(self.folder / "results.csv", _COLUMNS, key=len(KEY))

    def tasks(self, wanted: "Wanted") -> list[Task]:
        """Rows of every head and condition."""
        return [task for task in self._all_tasks() if wanted.takes(task)]

    def _all_tasks(self) -> Iterator[Task]:
        for table, group in self.groups.items():
            for method in self.tools.available(table):
                if method not in group.skip:
                    yield from group.tasks(table, method)
        for table, combined in {
            "unwrap": self.groups["unwrap"].mappings,
            "pipeline": self.pipelines,
        }.items():
            yield from (
                Task(table, name, DEFAULT) for name in combined if self._has(combined[name])
            )

    def _has(self, stages: Mapping[str, Any]) -> bool:
        """Whether every method of a combination is there."""
        return all(
            named(stage)[0] in (*self.tools.available(group), TRUTH)
            for group, stage in stages.items()
        )


@dataclass(frozen=True)
class Wanted:
    """Some of a study; everything where None.

    Parameters
    ----------
    split
        Whose heads.
    heads, conditions, tables, methods
        Numbers and names.
    grids
        Whether grids are tried.
    """

    split: str = "choose"
    heads: Sequence[int] | None = None
    conditions: Sequence[str] | None = None
    tables: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    grids: bool = True

    def takes(self, task: Task) -> bool:
        """Whether a row is wanted."""
        return (
            (self.tables is None or task.table in self.tables)
            and (self.methods is None or task.method in self.methods)
            and (self.grids or task.detailed)
        )
