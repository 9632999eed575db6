"""Methods by name: what is found, what is typed, what is refused before it can run."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from qsmnet.cli.compose import available, compose, settings
from qsmnet.errors import UsageError, WeightsError
from qsmnet.inversion.automatic import Automatic
from qsmnet.inversion.tkd import TKD

TOY = """
from dataclasses import dataclass, field

from qsmnet.errors import WeightsError
from qsmnet.volumes import Susceptibility


@dataclass(frozen=True)
class Toy:
    gain: float = 1.0
    sizes: tuple[int, ...] = (1, 2)
    name: str = "a"
    steps: int = 3
    limit: float | None = None
    inner: object = None
    takes = "local_field"

    def __post_init__(self):
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if self.name == "broken":
            raise WeightsError("toy.pt", "is damaged", "fetch it again")

    def __call__(self, local):
        return Susceptibility(local.field * self.gain, local.mask)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's config folder with one method in it; ``sys.path`` and modules are put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_method", raising=False)
    (tmp_path / "my_method.py").write_text(TOY)
    put(tmp_path, "toy", "_target_: my_method.Toy\ngain: 2.0\nsizes: [3, 4]\n")
    yield tmp_path
    sys.modules.pop("my_method", None)


def put(folder: Path, name: str, text: str) -> None:
    (folder / "inverter").mkdir(exist_ok=True)
    (folder / "inverter" / f"{name}.yaml").write_text(text)


@pytest.fixture
def packaged(monkeypatch):
    """Pretend that a text is the packaged config ``tkd``."""
    from omegaconf import OmegaConf

    def use(text):
        monkeypatch.setattr("qsmnet.cli.compose._load", lambda *_: OmegaConf.create(text))

    return use


# --- packaged methods -----------------------------------------------------------------------------


def test_packaged_method():
    assert compose("inverter", "tkd") == TKD()


def test_auto_has_a_strength_chosen():
    method = compose("inverter", "tkd", ["threshold=auto", "padding=1.5"])
    assert method == Automatic(TKD(padding=1.5), "threshold")
    assert settings("inverter", "tkd", ["threshold=auto"])["threshold"] == "auto"


def test_auto_in_a_config_of_ones_own(own):
    put(own, "mine", "_target_: qsmnet.inversion.tkd.TKD\nthreshold: auto\n")
    assert compose("inverter", "mine", (), own) == Automatic(TKD())
    assert compose("inverter", "mine", ["threshold=0.2"], own) == TKD(0.2)


@pytest.mark.parametrize(
    ("group", "name", "override"),
    [
        ("inverter", "tkd", "padding=auto"),
        ("inverter", "tkd", "correct_underestimation=auto"),
        ("background", "vsharp", "threshold=auto"),
    ],
)
def test_auto_is_for_strengths(group, name, override):
    with pytest.raises(UsageError, match="auto"):
        compose(group, name, [override])


def test_settings_are_typed():
    method = compose("inverter", "tkd", ["threshold=1e-1", "correct_underestimation=true"])
    assert method == TKD(threshold=0.1, correct_underestimation=True)


def test_settings_as_plain_data():
    plain = settings("inverter", "tkd", ["threshold=0.2"])
    assert plain["threshold"] == 0.2
    assert plain["_target_"] == "qsmnet.inversion.tkd.TKD"


def test_available_lists_the_configs():
    assert "tkd" in available("inverter")
    assert available("nothing") == ()


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("tdk", [], r"did you mean 'tkd'\?.*tkd"),
        ("../inverter/tkd", [], "is not known"),
        ("tkd", ["treshold=0.2"], r"did you mean 'threshold'\?.*correct_underestimation"),
        ("tkd", ["xyzzy=0.2"], "it has: threshold"),
        ("tkd", ["threshold"], "write name=value"),
        ("tkd", ["threshold=abc"], "threshold=abc is not a float"),
        ("tkd", ["threshold="], "is not a float"),
        ("tkd", ["threshold=null"], "is not a float"),
        ("tkd", ["threshold=[1, 2]"], "is not a float"),
        ("tkd", ["threshold=[1"], "cannot be read"),
        ("tkd", ["threshold=0.9"], r"must lie in \(0, 2/3\)"),
        ("tkd", ["correct_underestimation=maybe"], "is not a bool"),
        ("tkd", ["kernel=round"], "use one of sampled, prism"),
        ("tkd", ["_target_=os.system"], "no parameter '_target_'"),
        ("tkd", ["kernel._target_=os.system"], "no parameter"),
        ("tkd", ["kernel={_target_: os.system, command: true}"], "names a target"),
        ("tkd", ["kernel=[{_target_: os.system}]"], "names a target"),
        ("tkd", ["_partial_=true"], "no parameter"),
    ],
)
def test_refusals(name, overrides, words):
    with pytest.raises(UsageError, match=words) as caught:
        compose("inverter", name, overrides)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "builtins.eval",
        "qsmnet.io.files.os.system",
        "qsmnet.dipole.torch.load",
        "qsmnetx.evil",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_packaged_configs_reach_qsmnet_only(packaged, monkeypatch, target, nested):
    monkeypatch.setattr("qsmnet.cli.compose.instantiate", lambda *_, **__: pytest.fail("ran"))
    inner = {"_target_": target}
    config = {"_target_": "qsmnet.inversion.tkd.TKD", "a": [{"b": inner}]} if nested else inner
    packaged(config)
    with pytest.raises(UsageError, match="outside of qsmnet"):
        compose("inverter", "tkd")


def test_every_packaged_inverter_is_allowed():
    for name in available("inverter"):
        assert settings("inverter", name)["_target_"].startswith("qsmnet.")


# --- the user's own -------------------------------------------------------------------------------


def test_own_method(own):
    method = compose("inverter", "toy", ["gain=3"], own)
    assert (method.gain, method.sizes) == (3.0, (3, 4))
    assert isinstance(method.gain, float)


def test_own_method_is_listed_and_unknown_without_the_folder(own):
    assert {"tkd", "toy"} <= set(available("inverter", own))
    with pytest.raises(UsageError, match="is not known"):
        compose("inverter", "toy")


def test_own_folder_does_not_hide_the_packaged(own):
    assert compose("inverter", "tkd", config_dir=own) == TKD()


def test_own_config_may_start_from_a_packaged_one(own):
    put(own, "mild", "defaults: [tkd, _self_]\nthreshold: 0.3\n")
    assert compose("inverter", "mild", config_dir=own) == TKD(threshold=0.3)


def test_own_config_of_a_packaged_name_wins(own):
    put(own, "tkd", "_target_: qsmnet.inversion.tkd.TKD\nthreshold: 0.25\n")
    assert compose("inverter", "tkd", config_dir=own) == TKD(threshold=0.25)


def test_own_parameters_not_in_the_yaml(own):
    method = compose("inverter", "toy", ["name=007", "limit=null", "steps=4"], own)
    assert (method.name, method.limit, method.steps) == ("007", None, 4)
    assert compose("inverter", "toy", ["limit=2"], own).limit == 2.0
    with pytest.raises(UsageError, match="not a int"):
        compose("inverter", "toy", ["steps=4.5"], own)


def test_awkward_paths_survive(own):
    path = "/data/my study (1), b={c}/w=1.safetensors"
    assert compose("inverter", "toy", [f"name={path}"], own).name == path


def test_a_methods_own_error_passes_through(own):
    with pytest.raises(WeightsError, match=r"toy\.pt"):
        compose("inverter", "toy", ["name=broken"], own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gain: 1\n", "no _target_"),
        ("_target_: my_method.Nothing\n", "Nothing"),
        ("_target_: no_such_module.Toy\n", "no_such_module"),
        ("_target_: my_method.Toy\nunknown: 1\n", "unknown"),
        ("_target_: [\n", "broken config"),
        ("defaults: [nothing]\n", "broken config"),
    ],
)
def test_own_mistakes_are_one_usage_error(own, text, words):
    put(own, "wrong", text)
    with pytest.raises(UsageError, match=words):
        compose("inverter", "wrong", config_dir=own)


def test_own_folder_must_exist(tmp_path):
    with pytest.raises(UsageError, match="--config-dir"):
        compose("inverter", "tkd", config_dir=tmp_path / "nowhere")


def test_own_folder_is_last_on_the_path_and_once(own):
    compose("inverter", "toy", config_dir=own)
    compose("inverter", "toy", config_dir=own)
    assert sys.path[-1] == str(own)
    assert sys.path.count(str(own)) == 1


def test_nothing_is_imported_from_the_folder_for_a_packaged_method(own):
    (own / "my_method.py").write_text("raise SystemExit('imported')")
    assert compose("inverter", "tkd", config_dir=own) == TKD()
    assert str(own) not in sys.path


# --- beside Hydra ---------------------------------------------------------------------------------


def test_hydras_state_is_left_alone(own):
    compose("inverter", "tkd")
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(own), version_base="1.3"):
        compose("inverter", "tkd")
        compose("inverter", "toy", config_dir=own)
        assert hydra_compose("inverter/toy").inverter.gain == 2.0
    assert not GlobalHydra.instance().is_initialized()


def test_only_the_command_line_imports_hydra():
    code = "import sys, qsmnet.io.nifti, qsmnet.inversion.tkd; print('hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
