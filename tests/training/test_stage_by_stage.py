"""Training an unrolled network U-Net by U-Net: what each is given, and that a run goes on."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from qsmnet.errors import UsageError
from qsmnet.networks.classical_residual import ClassicalResidual
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.training.crops import CropBatch, Crops, collate_crops, estimate, prepare
from qsmnet.training.losses import Loss
from qsmnet.training.module import InversionModule, relative_error
from qsmnet.training.run import Run, seed_everything
from qsmnet.training.scenes import Scenes
from qsmnet.training.stages import Stages, fit_last
from qsmnet.weights.store import load_weights

SMALL = {"iterations": 2, "base": 9, "levels": 2, "convolutions": 1, "start_iterations": 3}
CARD = {"_target_": "qsmnet.networks.unrolled.Unrolled", **SMALL}
STAGES = Stages(scenes=2, validation_scenes=1, crop=8, validation_crops=2, fitted_scenes=2)


def network():
    seed_everything(3)
    return Unrolled(**SMALL)


def module(made=None, steps=4):
    adam = partial(torch.optim.AdamW, lr=1e-3)
    loss = Loss(gradient=0.0, free_mean=False)
    return InversionModule(made or network(), loss, adam, steps, warmup=2, ema_decay=0.5, seed=3)


def run(folder, steps=4):
    folder.mkdir(exist_ok=True)
    trainer = {"max_steps": steps, "accelerator": "cpu", "precision": "32-true"}
    return Run(folder, {"network": CARD}, trainer | {"enable_progress_bar": False}, 2)


@pytest.fixture
def scenes(pairs, tmp_path):
    made = Scenes(tmp_path / "scenes", pairs().training, 2)
    made.simulate()
    return made


def test_scenes_come_back_as_they_were(pairs, scenes):
    data = pairs()
    for index in range(2):
        expected, found = data.stack([data.training[index]]), scenes[index]
        for name in ("field", "support", "noise", "chi", "mask"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
        assert found.geometry == expected.geometry
        assert found.magnitude is None


def test_scenes_that_are_there_are_not_simulated_again(pairs, scenes):
    times = [path.stat().st_mtime_ns for path in scenes.folder.iterdir()]
    Scenes(scenes.folder, pairs().training, 2).simulate()
    assert [path.stat().st_mtime_ns for path in scenes.folder.iterdir()] == times


def test_scenes_of_other_settings_are_no_ones_else(pairs, tmp_path):
    items = pairs().training
    Scenes(tmp_path / "kept", items, 1, settings={"seed": 1}).simulate()
    Scenes(tmp_path / "kept", items, 2, settings={"seed": 1}).simulate()
    with pytest.raises(UsageError, match="other settings"):
        Scenes(tmp_path / "kept", items, 2, settings={"seed": 2}).simulate()


def test_another_network_can_use_the_scenes(pairs, tmp_path):
    shared = replace(STAGES, scenes_folder=str(tmp_path / "kept"))
    shared.fit(run(tmp_path / "first"), module(), pairs())
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "kept").rglob("*.pt"))]
    shared.fit(run(tmp_path / "second"), module(), pairs())
    again = [path.stat().st_mtime_ns for path in sorted((tmp_path / "kept").rglob("*.pt"))]
    assert len(times) == 3
    assert again == times
    assert not (tmp_path / "first" / "scenes").exists()


@torch.no_grad()
def test_a_prior_is_given_what_it_sees_at_inference(scenes, tmp_path):
    made = network()
    for prior in made.priors:
        torch.nn.init.normal_(prior.head.weight, std=0.1)
    folders = [tmp_path / name for name in ("first", "second")]
    prepare(made, 0, scenes, folders[0], tmp_path / "nothing")
    prepare(made, 1, scenes, folders[1], folders[0])
    batch = scenes[1]
    problem = made.problem(*batch.inputs(made)[:5])
    first, second = (each / problem.scale for each in made.estimates(*batch.inputs(made))[:2])
    for expected, stage in ((first, 1), (second, 2)):
        found = estimate(made, stage, problem, folders[stage - 1], 1)
        # stored in half precision
        assert torch.allclose(found, expected, atol=5e-3 * float(expected.abs().max()))


@torch.no_grad()
def test_wanted_correction_leads_to_the_truth(scenes, tmp_path):
    made = network()
    prepare(made, 0, scenes, tmp_path / "first", tmp_path)
    stored = torch.from_numpy(np.load(tmp_path / "first" / "00000.npy")).float()[None]
    batch = scenes[0]
    scale = made.problem(*batch.inputs(made)[:5]).scale
    corrected = (stored[:, 2:3] + stored[:, :1]) * scale
    assert float(relative_error(corrected, batch.chi, batch.mask)) < 1.0
    # what cannot be known, the mean, is not asked for
    assert abs(float(stored[:, 0].sum())) < 1e-2 * float(stored[:, 0].abs().sum())


def test_crops_are_parts_of_a_scene_with_what_belongs_together(scenes, tmp_path):
    prepare(network(), 0, scenes, tmp_path / "first", tmp_path)
    crops = Crops(tmp_path / "first", 8, seed=1, split="train 0", length=20)
    whole = [np.load(path) for path in crops.paths]
    drawn = [crops[i] for i in range(20)]
    for crop in drawn:
        assert crop.channels.shape == (7, 8, 8, 8)
        values = crop.chi.half().numpy()
        assert any(np.isin(values, scene[0]).all() for scene in whole)
        assert torch.equal(crop.mask, (crop.channels[4] > 0).float())
    assert len({float(crop.chi.sum()) for crop in drawn}) > 10
    assert torch.equal(crops[7].chi, drawn[7].chi)
    batch = collate_crops(drawn[:3])
    assert isinstance(batch, CropBatch)
    assert batch.inputs(network())[0].shape == (3, 7, 8, 8, 8)
    assert torch.equal(batch.to(torch.device("cpu")).channels, batch.channels)


def test_a_run_leaves_the_weights_of_the_whole_network(pairs, tmp_path):
    card = STAGES.fit(run(tmp_path), module(), pairs())
    found, kept = load_weights(tmp_path / "weights.safetensors")
    assert kept["steps"] == card["steps"] == 8
    assert [each["steps"] for each in kept["stages"]] == [4, 4]
    untrained = network().state_dict()
    moved = {name.split(".")[1] for name, value in found.state_dict().items()
             if name.startswith("priors") and not torch.equal(value, untrained[name])}  # fmt: skip
    assert moved == {"0", "1"}
    assert not torch.equal(found.final.change, untrained["final.change"])
    # gigabytes of what nothing needs again
    assert not list(tmp_path.glob("stage_*/train"))
    before = (tmp_path / "weights.safetensors").stat().st_mtime_ns
    assert STAGES.fit(run(tmp_path), module(), pairs()) == kept
    assert (tmp_path / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="U-Net 1 is trained already, for 4 steps"):
        STAGES.fit(run(tmp_path, steps=6), module(steps=6), pairs())


class KilledError(Exception):
    """As if by a signal."""


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_that_was_stopped_goes_on(pairs, tmp_path, monkeypatch, steps):
    """Killed in the second U-Net's training, before its first checkpoint and after it."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = STAGES.fit(run(whole), module(), pairs())
    fit, begun = InversionModule.training_step, []

    def killed(self, batch, index):
        begun.append(index)
        if len(begun) > 4 + steps:
            raise KilledError
        return fit(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(InversionModule, "training_step", killed)
        with pytest.raises(KilledError):
            STAGES.fit(run(broken), module(), pairs())
    if steps > 2:
        assert (broken / "stage_2" / "last.ckpt").exists()
    else:
        assert not (broken / "stage_2" / "last.ckpt").exists()
        # of more steps than these there would be a log
        (broken / "stage_2" / "metrics.csv").write_text("step,name,value\n0,train/loss,9\n")
    # what a kill leaves of a map is none
    (broken / "stage_2" / "train" / ".1.tmp.00000.npy").write_bytes(b"")
    again = STAGES.fit(run(broken), module(), pairs())
    assert again["sha256"] == expected["sha256"]
    logs = [(folder / "stage_2" / "metrics.csv").read_text() for folder in (whole, broken)]
    assert logs[0] == logs[1]


def test_a_residual_network_has_one_stage(pairs, tmp_path):
    small = {"base": 8, "levels": 2, "convolutions": 1, "start_iterations": 3}
    seed_everything(3)
    made = ClassicalResidual(**small)
    card = {"_target_": "qsmnet.networks.classical_residual.ClassicalResidual", **small}
    trained = replace(run(tmp_path), card={"network": card})
    STAGES.fit(trained, module(made), pairs())
    found, kept = load_weights(tmp_path / "weights.safetensors")
    assert [each["steps"] for each in kept["stages"]] == [4]
    assert all(found.prior(0).head.weight.ravel() != 0)


def test_several_processes_are_refused(pairs, tmp_path):
    several = replace(run(tmp_path), trainer={**run(tmp_path).trainer, "devices": 2})
    with pytest.raises(UsageError, match=r"trainer.devices: training in stages is for one process"):
        STAGES.fit(several, module(), pairs())


def test_other_networks_have_no_stages(pairs, tmp_path):
    for other in (UNet((4, 6)), Unrolled(**SMALL | {"shared": True})):
        with pytest.raises(UsageError, match=r"network\.shared=false"):
            STAGES.fit(run(tmp_path), module(other), pairs())


def test_last_step_is_fitted(scenes):
    """An estimate that is twice the truth wants another factor."""
    made = network()
    cases = []
    for index in range(2):
        batch = scenes[index]
        problem = made.problem(*batch.inputs(made)[:5])
        noiseless = replace(problem, field=2 * problem.dipole.forward(batch.chi / problem.scale))
        cases.append((noiseless, 2 * batch.chi / problem.scale, batch.chi))
    fit_last(made, cases)
    problem, chi, truth = cases[0]
    result = (problem.scale * made.last(problem, chi)).detach()
    # 100 at the start
    assert float(relative_error(result, truth, problem.mask)) < 40


@pytest.mark.parametrize("settings", [{"scenes": 0}, {"crop": 4}, {"fitted_scenes": -1}])
def test_counts_are_checked(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Stages(**settings)
