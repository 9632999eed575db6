"""Learned and classical inversion of many fields: which, of what, and where the answers go."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from qsmnet.evaluate.case_inputs import Input
from qsmnet.evaluate.case_scores import COLUMNS
from qsmnet.evaluate.heads import TINY, Condition, Heads, Scene
from qsmnet.evaluate.ledger import Ledger
from qsmnet.evaluate.stage_study import Group, Task
from qsmnet.evaluate.subjects import Subject
from qsmnet.evaluate.tools import Tools
from qsmnet.inversion.learned import LearnedInverter
from qsmnet.simulate.simulator import Simulator

#: What tells rows apart.
KEY = ("table", "protocol", "item", "input", "method", "parameter")
_COLUMNS = (*KEY, "split", "seconds", "peak_memory_mib", "error", *COLUMNS, "commit")
_SMALL = (32, 32, 32)


@dataclass(frozen=True)
class Phantoms:
    """Volumes of a simulator's config, numbered from 0.

    Parameters
    ----------
    simulator
        Name of the config.
    count
        How many.
    overrides
        Of the config.
    """

    simulator: str
    count: int
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Methods on inputs of protocols.

    Parameters
    ----------
    title
        One line.
    protocols
        By name; all of heads where empty.
    inputs
        By name, settings of `Input`.
    learned
        Whether every learned method is tried.
    methods
        Others that are tried with their defaults, beside those that ``grids`` has.
    variants, grids, fixed
        As of `Group`.
    against_first
        Whether inputs are changes of the first, whose NRMSE they are told over.
    positions
        Where inputs, or else protocols, lie on the axis of a figure, by name.
    axis
        The figure's label, with its unit; no figure is drawn where it is empty.
    scores
        Columns of the rows, of which the figure shows whichever is defined.
    spectrum
        Whether a figure shows the error over the dipole kernel's magnitude.
    """

    title: str
    protocols: Sequence[str] = ()
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"as it is": {}})
    learned: bool = True
    methods: Sequence[str] = ()
    variants: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    fixed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    against_first: bool = False
    positions: Mapping[str, float] = field(default_factory=dict)
    axis: str = ""
    scores: Sequence[str] = ("nrmse",)
    spectrum: bool = False

    def __post_init__(self) -> None:
        # a setting that is not known, or a grid that is too long, is told now
        _ = self.made_inputs, self.group

    @cached_property
    def made_inputs(self) -> dict[str, Input]:
        """Inputs by name."""
        return {name: Input(**(settings or {})) for name, settings in self.inputs.items()}

    @cached_property
    def group(self) -> Group:
        """Parameters that are tried of a method."""
        return Group(variants=self.variants, grids=self.grids, fixed=self.fixed)

    def smoke(self, heads: Mapping[str, Any]) -> "Table":
        """Two inputs, two values a grid, the first of the heads' protocols."""
        grids = {
            method: {key: values[:2] for key, values in grid.items()}
            for method, grid in self.grids.items()
        }
        protocols = self.protocols or list(heads)
        first = [name for name in protocols if name in heads][:1]
        others = [name for name in protocols if name not in heads][:2]
        inputs = dict(list(self.inputs.items())[:2])
        return replace(self, inputs=inputs, grids=grids, protocols=[*first, *others])


@dataclass(frozen=True)
class CaseStudy:
    """Question, heads and phantoms, tables and where the answers go.

    Parameters
    ----------
    tables
        By name.
    protocols
        Of heads, by name.
    phantoms
        Protocols that are no heads', by name.
    splits
        By name, the heads' numbers. Phantoms are of the split, too.
    skip
        Learned methods that are left out.
    scene
        Margin in voxels and erosion in mm of `Scene`.
    heads
        Where heads come from.
    tools
        Where methods come from.
    folder
        ``results.csv``, tables and figures.
    device
        Where methods run.
    """

    tables: Mapping[str, Table]
    protocols: Mapping[str, Condition]
    phantoms: Mapping[str, Phantoms]
    splits: Mapping[str, Sequence[int]]
    skip: Sequence[str]
    scene: Mapping[str, Any]
    heads: Heads
    tools: Tools
    folder: Path
    device: str = "cpu"

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        tools: Tools,
        folder: Path,
        labels: Path | None = None,
        cache: Path | None = None,
    ) -> "CaseStudy":
        """Study of a ``config.yaml``; heads of the label maps in ``labels``, kept in ``cache``.

        Raises
        ------
        UsageError, TypeError, ValueError
            If a protocol, a setting or a grid is wrong.
        """
        protocols = {n: Condition(n, **each) for n, each in config["protocols"].items()}
        phantoms = {n: Phantoms(**each) for n, each in (config.get("phantoms") or {}).items()}
        names = {each.protocol for each in protocols.values()}
        sequences = {name: tools.build("protocol", name, ()) for name in names}
        simulator = tools.build("simulator", "head", ())
        tables = {name: Table(**each) for name, each in config["tables"].items()}
        for name, table in tables.items():
            unknown = [p for p in table.protocols if p not in {**protocols, **phantoms}]
            if unknown:
                raise ValueError(f"table {name}: no protocol is called {unknown[0]}")
        return cls(
            tables=tables,
            protocols=protocols,
            phantoms=phantoms,
            splits=config["heads"],
            skip=config.get("skip") or (),
            scene=config["scene"],
            heads=Heads(simulator, sequences, config["seed"], labels, cache),
            tools=tools,
            folder=folder,
        )

    def smoke(self) -> "CaseStudy":
        """One tiny head, one small volume a protocol, two values a grid: does it run."""
        tables = {name: table.smoke(self.protocols) for name, table in self.tables.items()}
        return replace(
            self,
            tables=tables,
            protocols={n: replace(c, protocol="tiny") for n, c in self.protocols.items()},
            phantoms={
                name: replace(each, count=1, overrides=[*each.overrides, f"shape={list(_SMALL)}"])
                for name, each in self.phantoms.items()
            },
            splits={split: numbers[:1] for split, numbers in self.splits.items()},
            heads=replace(self.heads, protocols={"tiny": TINY}),
        )

    @property
    def results(self) -> Ledger:
        """One row a table, protocol, item, input, method and parameter."""
        return Ledger(self.folder / "results.csv", _COLUMNS, key=len(KEY))

    @cached_property
    def learned(self) -> list[str]:
        """Learned methods of the config group ``inverter``."""
        found = []
        for name in self.tools.available("inverter"):
            if name not in self.skip:
                built = self.tools.build("inverter", name, ())
                found += [name] if isinstance(built, LearnedInverter) else []
        return found

    def methods(self, table: Table) -> list[str]:
        """Methods of a table that are there, the learned ones first."""
        names = [*(self.learned if table.learned else ()), *table.methods, *table.grids]
        there = set(self.tools.available("inverter"))
        return [name for name in dict.fromkeys(names) if name in there]

    def tasks(self, name: str) -> Iterator[Task]:
        """Rows of one input of a table."""
        table = self.tables[name]
        for method in self.methods(table):
            yield from table.group.tasks(name, method)

    def inputs(self, table: Table) -> dict[str, Input]:
        """Name the inputs of a table whose methods are there."""
        made = table.made_inputs.items()
        return {name: each for name, each in made if each.there(self.tools)}

    def protocols_of(self, table: Table) -> list[str]:
        """Names of the table's protocols."""
        return list(table.protocols or self.protocols)

    def items(self, split: str, protocol: str) -> list[str]:
        """Names of a protocol's heads or phantoms."""
        phantoms = self.phantoms.get(protocol)
        numbers = self.splits[split] if phantoms is None else range(phantoms.count)
        return [self.item(split, protocol, number) for number in numbers]

    def item(self, split: str, protocol: str, number: int) -> str:
        """Name of a head or phantom; splits share numbers of phantoms, but no phantom."""
        return f"{split}-{number}" if protocol in self.phantoms else self.heads.name(number)

    def subject(self, protocol: str, number: int, split: str) -> Subject:
        """Head or phantom ``number`` under a protocol."""
        erosion = float(self.scene["erosion"])
        if protocol in self.phantoms:
            chosen = self.phantoms[protocol]
            made: Simulator = self.tools.build("simulator", chosen.simulator, chosen.overrides)
            return Subject.of_phantom(made.scene(self.heads.seed, number, split), erosion)
        scan = self.heads.get(number, split, self.protocols[protocol])
        return Subject.of_head(Scene(scan, **self.scene))


def row_error(row: Mapping[str, str] | None) -> float | None:
    """NRMSE of a row in percent; infinite where its method failed, None where there is no row."""
    if row is None:
        return None
    return math.inf if row["error"] else float(row["nrmse"])
