"""Many methods on many unseen simulated brains, parameters chosen on other brains."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qsmnet.dipole import Kernel
from qsmnet.evaluate.compare import Method as Inverter
from qsmnet.evaluate.compare import Result, compare
from qsmnet.evaluate.ledger import Ledger
from qsmnet.evaluate.metrics import SCORES
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.scene import Scene
from qsmnet.simulate.simulator import Simulator

#: Makes a config's inverter from its parameters and, where it has one, the inverting kernel.
Build = Callable[[str, Mapping[str, object], Kernel], Inverter]
Say = Callable[[str], None]

#: Columns of the error over |D|, from 0 to 2/3 in equal bins.
SPECTRUM = tuple(f"e{i:02d}" for i in range(20))
_RESULT = ("condition", "brain", "method", "parameters", *SCORES)
_RESULT_COLUMNS = (*_RESULT, "seconds", "peak_memory_mib", "error", *SPECTRUM)
_CHOICE_COLUMNS = ("condition", "method", "value", "brain", "nrmse")


@dataclass(frozen=True)
class Condition:
    """How brains are measured and inverted.

    Parameters
    ----------
    name
        Of the table's row.
    noise
        Standard deviation of white noise in ppm.
    shape
        Grid; brains are scaled to fit it whole.
    voxel_size
        In mm.
    b0_dir
        Direction of B0 in voxel axes.
    making
        Kernel that makes the field, by linear convolution.
    inverting
        Kernel that inverts it, for the methods that can choose.
    tuned_on
        Condition that parameters are chosen for; its own where empty.
    """

    name: str
    noise: float
    shape: Sequence[int] = (128, 128, 128)
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0)
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0)
    making: Kernel = "prism"
    inverting: Kernel = "prism"
    tuned_on: str = ""

    def scene(self, seed: int, split: str, index: int, device: str = "cpu") -> Scene:
        """Brain ``index`` of a split; the same anatomy and noise pattern under every condition."""
        x, y, z = self.voxel_size
        acquisition = Acquisition(voxel_size=(x, y, z), kernel=self.making)
        simulator = Simulator(
            {"brain": Brain()}, acquisition=acquisition, shape=self.shape, device=device
        )
        record = simulator.draw(seed, split, index)
        noise = {**record["acquisition"]["noise"], "level": self.noise, "variation": 0.0}
        direction = [float(component) for component in self.b0_dir]
        record["acquisition"] = {"b0_dir": direction, "noise": noise, "unmasked": False}
        return simulator.render(record)


@dataclass(frozen=True)
class Method:
    """A config with fixed parameters and, where ``tuned`` names it, one chosen from a list."""

    fixed: Mapping[str, object] = field(default_factory=dict)
    tuned: str = ""
    values: Sequence[float] = ()

    def parameters(self, value: float | None) -> dict[str, object]:
        """All parameters, with the chosen value."""
        return {**self.fixed, **({self.tuned: value} if value is not None else {})}


@dataclass(frozen=True)
class Study:
    """Question, brains, methods and where the answers go.

    Parameters
    ----------
    conditions
        By name.
    methods
        By the name of their config.
    seed
        Of all brains; the splits ``choose`` and ``test`` share none.
    brains
        Indices of the test split.
    choose_brains
        Indices of the split that parameters are chosen on.
    folder
        ``results.csv``, ``choices.csv``, ``table.md``, ``spectrum.png``.
    build
        Makes an inverter.
    device
        Where scenes are made and classical methods run.
    """

    conditions: Mapping[str, Condition]
    methods: Mapping[str, Method]
    seed: int
    brains: Sequence[int]
    choose_brains: Sequence[int]
    folder: Path
    build: Build
    device: str = "cpu"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path, build: Build) -> "Study":
        """Study of a ``config.yaml``: seed, numbers of brains, methods, and conditions by name."""
        conditions = {name: Condition(name, **each) for name, each in config["conditions"].items()}
        methods = {name: Method(**(each or {})) for name, each in config["methods"].items()}
        brains, others = range(config["brains"]), range(config["choose_brains"])
        return cls(conditions, methods, config["seed"], brains, others, folder, build)

    def smoke(self) -> "Study":
        """One brain of 32^3, the first two conditions, two values to choose from: does it run."""
        small = {n: replace(c, shape=(32, 32, 32)) for n, c in list(self.conditions.items())[:2]}
        methods = {n: replace(m, values=m.values[:2]) for n, m in self.methods.items()}
        return replace(self, conditions=small, methods=methods, brains=(0,), choose_brains=(0,))

    @property
    def results(self) -> Ledger:
        """One row a condition, brain and method."""
        return Ledger(self.folder / "results.csv", _RESULT_COLUMNS, key=3)

    @property
    def choices(self) -> Ledger:
        """One row a tried value and brain."""
        return Ledger(self.folder / "choices.csv", _CHOICE_COLUMNS, key=4)


def run_study(
    study: Study,
    conditions: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    say: Say = lambda _: None,
) -> None:
    """Choose parameters, then score; whatever the ledgers hold already is not done again.

    Rows that failed are tried again. Brains are the outer loop, so that a run that is stopped early
    has few brains under every condition rather than all under one.

    Parameters
    ----------
    study
        What to do.
    conditions, methods
        Some of the study's; all where None.
    say
        Called with a line of progress.
    """
    names = list(conditions or study.conditions)
    kinds = list(methods or study.methods)
    chosen = {name: choose(study, name, kinds, say) for name in names}
    for brain in study.brains:
        for name in names:
            _score_brain(study, name, brain, {k: chosen[name][k] for k in kinds}, say)


def choose(
    study: Study, condition: str, methods: Sequence[str], say: Say = lambda _: None
) -> dict[str, float | None]:
    """Value of each tuned parameter with the lowest median NRMSE on the brains to choose on.

    None for a method that has nothing to choose, or whose every value failed.
    """
    base = study.conditions[condition].tuned_on or condition
    tuned = [name for name in methods if study.methods[name].tuned]
    for brain in study.choose_brains:
        _try_values(study, base, brain, tuned, say)
    errors = study.choices.rows()
    best: dict[str, float | None] = dict.fromkeys(methods)
    for name in tuned:
        medians = {
            value: _median(
                errors.get((base, name, str(value), str(brain)), {}).get("nrmse", "")
                for brain in study.choose_brains
            )
            for value in study.methods[name].values
        }
        finite = {value: error for value, error in medians.items() if not math.isnan(error)}
        best[name] = min(finite, key=finite.__getitem__) if finite else None
        if best[name] in (min(medians), max(medians)):
            say(f"{condition}: {name} chose {best[name]:g}, an end of its list: extend it")
    return best


def _try_values(study: Study, base: str, brain: int, methods: Sequence[str], say: Say) -> None:
    done = study.choices.rows()
    missing = [
        (name, value)
        for name in methods
        for value in study.methods[name].values
        if (base, name, str(value), str(brain)) not in done
    ]
    if not missing:
        return
    scene = study.conditions[base].scene(study.seed, "choose", brain, study.device)
    for name, value in missing:
        result = _run(study, base, name, value, scene)
        error = result.scores.get("nrmse", math.nan)
        say(f"choose {base} brain {brain}: {name} {value:g} -> {error:.2f} %")
        row = {"condition": base, "method": name, "value": value, "brain": brain}
        study.choices.append({**row, "nrmse": f"{error:.6g}"})


def _score_brain(
    study: Study, condition: str, brain: int, chosen: Mapping[str, float | None], say: Say
) -> None:
    done = study.results.rows()
    keys = {name: (condition, str(brain), name) for name in chosen}
    missing = [name for name, key in keys.items() if key not in done or done[key]["error"]]
    if not missing:
        return
    scene = study.conditions[condition].scene(study.seed, "test", brain, study.device)
    for name in missing:
        result = _run(study, condition, name, chosen[name], scene)
        parameters = json.dumps(study.methods[name].parameters(chosen[name]))
        row = {"condition": condition, "brain": brain, "method": name, "parameters": parameters}
        study.results.append(row | _numbers(result))
        outcome = result.error or f"{result.scores['nrmse']:.2f} %, {result.seconds:.1f} s"
        say(f"{condition} brain {brain}: {name} -> {outcome}")


def _run(study: Study, condition: str, name: str, value: float | None, scene: Scene) -> Result:
    kernel = study.conditions[condition].inverting
    inverter = study.build(name, study.methods[name].parameters(value), kernel)
    return compare(scene.as_local_field(), scene.chi, {name: inverter}, scene.segmentation)[0]


def _numbers(result: Result) -> dict[str, object]:
    values: dict[str, object] = {name: f"{value:.6g}" for name, value in result.scores.items()}
    values |= {"seconds": f"{result.seconds:.3f}", "error": result.error}
    values["peak_memory_mib"] = f"{result.peak_memory_mib:.0f}"
    if result.spectrum is not None:
        errors = (f"{error:.4g}" for error in result.spectrum.error)
        values |= dict(zip(SPECTRUM, errors, strict=True))
    return values


def _median(values: Iterable[str]) -> float:
    """Median of the numbers among ``values``; NaN if one is missing or none is there."""
    numbers = [float(value) if value else math.nan for value in values]
    if not numbers or any(math.isnan(number) for number in numbers):
        return math.nan
    return statistics.median(numbers)
