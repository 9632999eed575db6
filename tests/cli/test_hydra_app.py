"""What a verb makes of its settings before and after Hydra reads them."""

import argparse
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from qsmnet.cli import hydra_app
from qsmnet.cli.hydra_app import build, check_targets, folder_named, share, switch, whole_number
from qsmnet.errors import OutputError, QsmnetError, ResourceError, UsageError


@pytest.mark.parametrize(
    ("argument", "sweep", "expected"),
    [
        ("out=a", False, 'out="a"'),
        ("++data.folder=a b", False, '++data.folder="a b"'),
        ('out=say "x"\\', False, r'out="say \"x\"\\"'),
        ("out='a'", False, "out='a'"),
        ('out="a"', False, 'out="a"'),
        ("out=null", False, "out=null"),
        ("out=", False, "out="),
        ("out=a,b", False, 'out="a,b"'),
        ("out=a,b", True, "out=a,b"),
        ("out=a=b", True, 'out="a=b"'),
        ("outer=a b", False, "outer=a b"),
        ("n=2", False, "n=2"),
        ("--multirun", True, "--multirun"),
    ],
)
def test_paths_are_quoted_for_hydra(argument, sweep, expected):
    assert hydra_app._readable(argument, sweep) == expected


def test_settings_come_last():
    argv = ["a=1", "-m", "--config-dir", "x=y", "~b", "c=2", "--cfg", "job"]
    assert hydra_app._ordered(argv) == [
        *("-m", "--config-dir", "x=y", "--cfg", "job"),
        *("a=1", "~b", "c=2"),
    ]


def failing(error):
    return {"_target_": f"{__name__}.{error}"}


def raises_usage():
    raise UsageError("field", "is wrong", "repair it")


def raises_no_space():
    raise OSError(28, "No space left on device", "bank")


def raises_read_only():
    raise PermissionError(13, "Permission denied", "bank")


def raises_value():
    raise ValueError("too\nlarge")


def raises_runtime():
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("raises_usage", UsageError, "field: is wrong"),
        ("raises_no_space", ResourceError, "bank: cannot be written: no space left"),
        ("raises_read_only", OutputError, "bank: cannot be written: permission denied"),
        ("raises_value", UsageError, "data: too large"),
        ("no_such_function", UsageError, "no_such_function"),
        ("raises_runtime", RuntimeError, "out of memory"),
    ],
)
def test_a_part_s_own_error_is_what_is_raised(name, kind, words):
    with pytest.raises(kind, match=words):
        build("data", failing(name))


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (lambda c: whole_number(c, "key", 1), 0),
        (lambda c: whole_number(c, "key", 1), True),
        (lambda c: whole_number(c, "key", 1), 1.0),
        (lambda c: whole_number(c, "key", 1, 5), 6),
        (lambda c: share(c, "key"), 1.1),
        (lambda c: share(c, "key"), "half"),
        (lambda c: share(c, "key"), float("nan")),
        (lambda c: switch(c, "key"), "no"),
        (lambda c: switch(c, "key"), 0),
        (lambda c: switch(c, "key"), None),
        (lambda c: folder_named(c, "key"), ""),
        (lambda c: folder_named(c, "key"), None),
        (lambda c: folder_named(c, "key"), ["a"]),
    ],
)
def test_wrong_values_name_their_key(check, value):
    with pytest.raises(UsageError, match="key: "):
        check(OmegaConf.create({"key": value}))


def test_a_broken_module_of_one_s_own_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    config = OmegaConf.create({"_target_": "broken_module.Class"})
    with pytest.raises(UsageError, match=r"broken_module\.Class: cannot be imported: .*division"):
        check_targets(config, tmp_path)


def test_argparse_is_left_as_it_was():
    before = argparse.ArgumentParser.error
    with pytest.raises(QsmnetError):
        hydra_app.run_app("simulate", lambda _: None, ["--nonsense"])
    assert argparse.ArgumentParser.error is before


@pytest.mark.parametrize("provider", ["command-line", "main"])
def test_only_a_folder_of_the_command_line_is_consent(tmp_path, monkeypatch, provider):
    source = SimpleNamespace(path=str(tmp_path), provider=provider)
    running = SimpleNamespace(runtime=SimpleNamespace(config_sources=[source]))
    monkeypatch.setattr(hydra_app.HydraConfig, "get", lambda: running)
    assert hydra_app.config_dir() == (tmp_path if provider == "command-line" else None)
