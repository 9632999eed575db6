"""A network whose U-Nets are trained one after another, on crops of whole scenes."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import qsmnet
from qsmnet.errors import UsageError
from qsmnet.networks.problem import Problem
from qsmnet.networks.staged import Staged
from qsmnet.networks.unrolled import Unrolled
from qsmnet.training.checks import check_counts
from qsmnet.training.crops import Crops, collate_crops, estimate, missing_correction, prepare
from qsmnet.training.data import ENDLESS, PairsModule
from qsmnet.training.module import InversionModule
from qsmnet.training.run import Run
from qsmnet.training.scenes import Scenes
from qsmnet.weights.store import Card, load_weights, save_weights


@dataclass(frozen=True)
class Stages:
    """Greedy training: each U-Net learns to correct what those before it have left.

    Scenes of the size of scans are simulated once. For each U-Net in turn, its inputs are computed
    for all of them; it is trained, by the run's loss, optimizer and schedule, on crops; then the
    scenes are taken one iteration further. The steps to the data keep the strengths that they
    start with. At last those of the final step and its factor are fitted to whole scenes.

    No gradient passes a Fourier transform or a classical start, and a step costs a tenth of one of
    the whole network. That steps on small whole objects teach little of large ones is in the diary
    of docs/training.md.

    Parameters
    ----------
    scenes, validation_scenes
        How many, of the run's training and validation items.
    crop
        Voxels of a crop along each axis.
    validation_crops
        How many are validated.
    fitted_scenes
        Scenes that the final step is fitted to; 0 leaves it as it is.
    scenes_folder
        Where the scenes lie; other runs with the same data, of another network say, can use them
        too. None is a folder in the run's.
    """

    scenes: int = 64
    validation_scenes: int = 4
    crop: int = 64
    validation_crops: int = 32
    fitted_scenes: int = 8
    scenes_folder: str | None = None

    def __post_init__(self) -> None:
        check_counts(1, scenes=self.scenes, validation_scenes=self.validation_scenes)
        check_counts(8, crop=self.crop)
        check_counts(1, validation_crops=self.validation_crops)
        check_counts(0, fitted_scenes=self.fitted_scenes)

    def fit(self, run: Run, module: InversionModule, data: PairsModule) -> Card:
        """Train every U-Net that is not trained yet, and write the weights of the whole network.

        A run that was stopped goes on by the same call.

        Raises
        ------
        UsageError
            If the network is not a `Staged` one, or its iterations share a U-Net; if there are
            several processes; if a U-Net that is trained is to be trained longer.
        QsmnetError
            As `qsmnet.training.run.Run.fit`.
        """
        network = module.network
        if not isinstance(network, Staged) or len(network.priors) != network.iterations:
            problem = "training in stages is for networks of U-Nets with network.shared=false"
            raise UsageError("stages", problem, "write stages=null, or network=unrolled")
        if run.processes > 1:
            problem = "training in stages is for one process"
            raise UsageError("trainer.devices", problem, "write trainer.devices=1")
        place = Path(self.scenes_folder or run.folder / "scenes")
        settings = _settings_of_items(run.card)
        scenes = {
            split: Scenes(place / split, items, count, data.workers, settings)
            for split, items, count in (
                ("train", data.training, self.scenes),
                ("validate", data.validation, self.validation_scenes),
            )
        }
        for each in scenes.values():
            each.simulate()
        cards = [
            self._stage(run, module, scenes, k, data.workers) for k in range(network.iterations)
        ]
        weights, last = run.folder / "weights.safetensors", run.folder / f"stage_{len(cards)}"
        if weights.with_suffix(".json").exists():
            return load_weights(weights)[1]
        if isinstance(network, Unrolled) and network.final is not None and self.fitted_scenes:
            self._fit_last(run, network, scenes["train"])
        card = {
            **run.card,
            "qsmnet": qsmnet.__version__,
            "steps": sum(each["steps"] for each in cards),
            "hours": round(sum(each["hours"] for each in cards), 4),
            "stages": [{k: each[k] for k in ("steps", "hours", "validation")} for each in cards],
            "validation": cards[-1]["validation"],
        }
        saved = save_weights(weights, network.state_dict(), card, overwrite=True)
        _remove_maps(last)
        return saved

    def _stage(
        self,
        run: Run,
        module: InversionModule,
        scenes: Mapping[str, Scenes],
        k: int,
        workers: int,
    ) -> Card:
        """Train U-Net ``k``, or take it as it was trained before."""
        network = cast("Staged", module.network)
        folder, before = (run.folder / f"stage_{each}" for each in (k + 1, k))
        weights = folder / "weights.safetensors"
        if not weights.exists():
            for split, each in scenes.items():
                prepare(network, k, each, folder / split, before / split)
            _remove_maps(before)
            self._train(run, module, k, folder, workers)
        trained, card = load_weights(weights)
        if card["steps"] < run.trainer["max_steps"]:
            problem = f"U-Net {k + 1} is trained already, for {card['steps']} steps"
            fix = f"start another run with init={weights.parent.parent}/weights.safetensors"
            raise UsageError("trainer.max_steps", problem, fix)
        network.prior(k).load_state_dict(trained.state_dict())
        return card

    def _train(self, run: Run, module: InversionModule, k: int, folder: Path, workers: int) -> None:
        network = cast("Staged", module.network)
        size, seed = self.crop, module.seed
        crops = PairsModule(
            Crops(folder / "train", size, seed, f"train {k}", ENDLESS),
            Crops(folder / "validate", size, seed, f"validate {k}", self.validation_crops),
            workers=workers,
            stack=collate_crops,
        )
        stage = InversionModule(
            network.prior(k),
            module.loss,
            module.make_optimizer,
            module.steps,
            module.warmup,
            module.average.decay,
            seed,
            module.schedule,
        )
        card = {"network": network.prior_config}
        part = Run(folder, card, run.trainer, run.epoch, pictures=False)
        resume = part.checkpoint.exists()
        if not resume:
            # of a training that was killed before its first checkpoint
            (folder / "metrics.csv").unlink(missing_ok=True)
        part.fit(stage, crops, resume=resume)

    def _fit_last(self, run: Run, network: Unrolled, scenes: Scenes) -> None:
        """Fit the strength of the final step and the factor to whole scenes."""
        last = network.iterations
        folder = run.folder / f"stage_{last}" / "train"
        cases = []
        for index in range(min(self.fitted_scenes, scenes.count)):
            batch = scenes[index]
            problem = network.problem(*batch.inputs(network)[:5])
            cases.append((problem, estimate(network, last, problem, folder, index), batch.chi))
        fit_last(network, cases)


def _remove_maps(stage: Path) -> None:
    """Gigabytes, which nothing reads again."""
    for split in ("train", "validate"):
        shutil.rmtree(stage / split, ignore_errors=True)


def _settings_of_items(card: Card) -> dict[str, Any]:
    """Return what decides a run's items, of its card."""
    recipe = card.get("recipe", {})
    found = {name: recipe[name] for name in ("simulator", "seed") if name in recipe}
    data = {k: v for k, v in recipe.get("data", {}).items() if "workers" not in k}
    # scenes of before signal voids were data are others
    return {**found, "data": data, "materials": card.get("materials"), "signal_voids": "data"}


def fit_last(network: Unrolled, cases: Sequence[tuple[Problem, Tensor, Tensor]]) -> None:
    """Minimise the mean relative square error of the result over the final step's parameters.

    Parameters
    ----------
    network
        With a final step.
    cases
        Problem, the last iteration's estimate over its scale, and the truth in ppm.
    """
    assert network.final is not None  # noqa: S101
    parameters = list(network.final.parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=15, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for problem, chi, truth in cases:
            error = missing_correction(problem, network.last(problem, chi), truth)
            size = missing_correction(problem, torch.zeros_like(chi), truth)
            share = error.square().sum() / size.square().sum() / len(cases)
            share.backward()  # type: ignore[no-untyped-call]
            total = total + share.detach()
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
