"""What ``qsmnet train`` refuses: one line, the right exit code, and nothing left behind."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from train_command import TINY, one_error, train

from qsmnet.cli import main
from qsmnet.io.nifti import read_volume
from qsmnet.simulate import bank
from qsmnet.training import checkpoint
from qsmnet.training.module import InversionModule
from qsmnet.training.panel import Pictures

# a folder whose permissions bind root too would be needed
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take longer than these runs."""
    monkeypatch.setattr(Pictures, "on_validation_end", lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pictures, "on_validation_end", lambda *_: None)
        assert train(*TINY, f"out={folder}", "trainer.max_steps=2") == 0
    return folder


def test_scans_are_not_for_training(tmp_path, capsys):
    assert train("experiment=smoke", "simulator=head", f"out={tmp_path / 'run'}") == 2
    error = one_error(capsys)
    assert "use one of anatomy, anatomy_mixture, brain, fields, mixture, primitives" in error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_magnitude_that_no_item_would_have_is_refused(tmp_path, capsys):
    chosen = ("experiment=unrolled_joint", "network.magnitude=true")
    assert train(*chosen, f"out={tmp_path / 'run'}") == 2
    assert "write data.magnitude=true" in one_error(capsys)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to be spoiled."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("optimizer.lr=-1", "learning rate"),
        ("optimizer.lr=nan", "learning rate"),
        ("optimizer.lr=inf", "finite"),
        ("optimizer.lr=fast", "optimizer"),
        ("optimizer.weight_decay=-1", "weight_decay"),
        ("data.batch_size=0", "batch_size"),
        ("data.phantoms=0", "phantoms"),
        ("data.validation_phantoms=0", "validation_phantoms"),
        ("data.workers=-1", "workers"),
        ("data.crop=[13,8,8]", "larger than a phantom"),
        ("data.crop=8", "crop"),
        ("data.scale=[2,1]", "scale"),
        ("threads=0", "threads"),
        ("threads=all", "threads"),
        ("warmup=-1", "warmup"),
        ("ema_decay=2", "ema_decay"),
        ("ema_decay=nan", "ema_decay"),
        ("loss.l1=-1", "weights"),
        ("trainer.max_steps=0", "max_steps"),
        ("trainer.precision=sloppy", "precision"),
        ("trainer.accelerator=abacus", "abacus"),
        ("+trainer.nonsense=1", "nonsense"),
        ("simulator.acquisition.tilt=-5", "tilt"),
        ("simulator.shape=[4,4,4]", "shape"),
        ("init=", "init"),
        ("seed=4294967296", "at most"),
        ("loss=kqsm_he2022", "spectra"),
        ("network.channels=[]", "network"),
        ("data=null", "Config group override"),
    ],
)
def test_wrong_setting_leaves_nothing(tmp_path, capsys, setting, words):
    settings = [each for each in TINY if not each.startswith("data.") or setting != "data=null"]
    assert train(*settings, f"out={tmp_path / 'a'}", setting) == 2
    assert words in one_error(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["out=", "out=' '", "resume=", "out=null"])
def test_folder_must_have_a_name(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    assert train(*TINY, out) == 2
    one_error(capsys)
    assert not list(tmp_path.iterdir())


def test_the_default_run_is_not_begun_unasked(tmp_path, capsys):
    assert train(f"out={tmp_path / 'a'}") == 2
    error = one_error(capsys)
    assert all(name in error for name in ("smoke", "unet", "kqsm", "kqsm_he2022"))
    assert not list(tmp_path.iterdir())


def test_a_network_may_be_named_in_place_of_an_experiment(tmp_path, capsys):
    settings = ["data=stored", f"data.folder={tmp_path}", f"data.validation_folder={tmp_path}"]
    assert train(f"out={tmp_path / 'a'}", "network=unet", *settings) == 3
    assert "holds no folders" in one_error(capsys)


def test_out_that_is_a_file(tmp_path, capsys):
    (tmp_path / "a").write_text("mine")
    assert train(*TINY, f"out={tmp_path / 'a'}") == 8
    assert "is a file" in one_error(capsys)
    assert (tmp_path / "a").read_text() == "mine"


@as_user
def test_parent_that_cannot_be_written(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert train(*TINY, f"out={tmp_path / 'a'}") == 8
    assert "not writable" in one_error(capsys)


@pytest.mark.parametrize("name", ["weights.safetensors", "last.ckpt", "metrics.csv"])
def test_files_that_a_run_would_replace(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert train(*TINY, f"out={tmp_path}") == 8
    assert f"{name}: exists already" in one_error(capsys)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_that_is_full_at_the_bank(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(bank.np, "savez", full)
        assert train(*TINY, f"out={tmp_path}") == 7
    assert "no space left" in one_error(capsys)
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.npz"))
    # the same command, once there is space
    assert train(*TINY, f"out={tmp_path}", "trainer.max_steps=2") == 0


def test_disk_that_is_full_at_the_first_checkpoint(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_bytes", full)
        assert train(*TINY, f"out={tmp_path}", "trainer.max_steps=2") == 7
    assert "no space left" in one_error(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]
    assert train(*TINY, f"out={tmp_path}", "trainer.max_steps=2") == 0


def test_disk_that_is_full_later_keeps_the_last_checkpoint(run, monkeypatch, capsys):
    before = (run / "last.ckpt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_bytes", full)
        assert train(f"resume={run}", "trainer.max_steps=4") == 7
    one_error(capsys)
    assert (run / "last.ckpt").read_bytes() == before
    assert (run / "config.yaml").exists()
    assert train(f"resume={run}", "trainer.max_steps=4") == 0


def test_pair_with_nan_names_its_file(tmp_path, capsys):
    scenes = ["simulator=primitives", "simulator.shape=[12,12,12]", "n=1"]
    assert main(["simulate", f"out={tmp_path / 'pairs'}", *scenes]) == 0
    file = tmp_path / "pairs" / "scene_000" / "local_field.nii.gz"
    spoil(file)
    settings = ["data=stored", "data.crop=null", "data.batch_size=1"]
    folders = [f"data.{name}={tmp_path / 'pairs'}" for name in ("folder", "validation_folder")]
    tiny = [each for each in TINY if not each.startswith("data.")]
    capsys.readouterr()
    assert train(*tiny, *settings, *folders, f"out={tmp_path / 'a'}") == 9
    assert str(file) in one_error(capsys)
    assert not list((tmp_path / "a").iterdir())


def spoil(file):
    import nibabel as nib

    volume = read_volume(file)
    data = np.full_like(volume.data, np.nan)
    nib.save(nib.Nifti1Image(data, volume.affine), file)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("last.ckpt", None, "no last.ckpt"),
        ("last.ckpt", b"", "damaged"),
        ("last.ckpt", b"PK\x03\x04 no checkpoint", "damaged"),
        ("config.yaml", None, "no config.yaml"),
        ("config.yaml", b"seed: [1", "cannot be read"),
        ("config.yaml", b"- 1\n", "no settings"),
        ("config.yaml", b"seed: 1\n", "lacks"),
        ("config.yaml", b"\xff\xfe\x00", "cannot be read"),
        ("metrics.csv", b"step,name,value\nx,y,z\n", "damaged"),
    ],
)
def test_damaged_run_is_not_resumed(run, capsys, name, content, words):
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert train(f"resume={run}", "trainer.max_steps=4") == 3
    assert words in one_error(capsys)
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert {k: v for k, v in after.items() if k != run} == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_checkpoint_is_not_resumed(run, capsys, share):
    content = (run / "last.ckpt").read_bytes()
    (run / "last.ckpt").write_bytes(content[: int(share * len(content))])
    assert train(f"resume={run}", "trainer.max_steps=4") == 3
    assert "last.ckpt: is damaged" in one_error(capsys)


def test_checkpoint_that_was_written_is_plain_data(run):
    state = torch.load(run / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert not list(run.glob(".*"))


OWN = "from qsmnet.training.losses import Loss\nfrom qsmnet.networks.unet import UNet\n"
OWN += "class Mine(Loss): pass\nclass Net(UNet): pass\n"


def test_own_code_comes_from_a_folder_that_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own_loss.py").write_text(OWN)
    settings = [*TINY, "loss._target_=own_loss.Mine", "trainer.max_steps=2"]
    assert train(*settings, f"out={tmp_path / 'a'}") == 2
    assert "own_loss.Mine" in one_error(capsys)
    given = ["--config-dir", str(tmp_path / "mine")]
    assert train(*settings, f"out={tmp_path / 'a'}", *given) == 0
    # its weights could not be loaded
    assert train(*TINY, *given, f"out={tmp_path / 'b'}", "network._target_=own_loss.Net") == 2
    assert not (tmp_path / "b").exists()
    # nor is a run's own config consent
    assert train(f"resume={tmp_path / 'a'}", "trainer.max_steps=4") == 2
    assert train(f"resume={tmp_path / 'a'}", "trainer.max_steps=4", *given) == 0


def interrupt_at(step, monkeypatch):
    usual = InversionModule.training_step

    def training_step(self, batch, index):
        if self.global_step == step:
            raise KeyboardInterrupt
        return usual(self, batch, index)

    monkeypatch.setattr(InversionModule, "training_step", training_step)


@pytest.mark.parametrize(("step", "words"), [(1, "start it again"), (3, "qsmnet train resume=")])
def test_interrupt_says_how_to_go_on(tmp_path, monkeypatch, capsys, step, words):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        assert train(*TINY, f"out={tmp_path}", "trainer.max_steps=4") == 130
    assert signal.getsignal(signal.SIGINT) == before
    assert words in one_error(capsys)
    again = f"resume={tmp_path}" if step == 3 else f"out={tmp_path}"
    assert train(*TINY, again, "trainer.max_steps=4") == 0


def test_lightning_s_own_way_of_ending_is_no_success(tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise SIGTERMException

    monkeypatch.setattr(InversionModule, "training_step", stopped)
    assert train(*TINY, f"out={tmp_path}") == 143
    assert not capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path, sent, code, workers):
    settings = [*TINY, f"out={tmp_path}", "trainer.max_steps=100000", f"data.workers={workers}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "qsmnet.cli", "train", *settings],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Ctrl-C is for the whole group, as in a terminal
    (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    lines = error.strip().splitlines()
    assert len(lines) == (sent == signal.SIGINT), error
    assert all(f"resume={tmp_path}" in line for line in lines)
