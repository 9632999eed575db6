"""The entry point: verbs, help, exit codes, signals."""

import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import qsmnet
from qsmnet import cli, errors


@pytest.fixture
def verb(monkeypatch):
    """Make ``qsmnet doctor`` do what the test says."""

    def use(function):
        module = types.ModuleType("qsmnet.cli.doctor")
        module.main = function
        monkeypatch.setitem(sys.modules, "qsmnet.cli.doctor", module)

    return use


def raises(error):
    def fail(_argv):
        raise error

    return fail


def test_help_names_every_verb_with_an_example(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("simulate", "train", "reconstruct", "compare", "demo", "doctor"):
        assert re.search(rf"^  {name} +\w", text, re.MULTILINE)
        assert f"$ qsmnet {name}" in text
    assert set(cli.VERBS) == {"simulate", "train", "reconstruct", "compare", "demo", "doctor"}


def test_no_verb_shows_the_help_as_a_usage_error(capsys):
    assert cli.main([]) == 2
    assert "reconstruct" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["qsmnet", qsmnet.__version__]


def test_unknown_verb_is_answered_with_the_nearest(capsys):
    assert cli.main(["reconstuct"]) == 2
    assert "did you mean 'reconstruct'?" in capsys.readouterr().err


def test_unknown_verb_without_a_neighbour_lists_all(capsys):
    assert cli.main(["xyzzy"]) == 2
    assert "simulate, train" in capsys.readouterr().err


def test_arguments_reach_the_verb_without_debug(verb):
    seen = []
    verb(seen.extend)
    assert cli.main(["doctor", "--debug", "a", "b=1"]) == 0
    assert seen == ["a", "b=1"]


ERRORS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_expected_failures_are_one_line_with_their_code(verb, capsys, error):
    verb(raises(error("phase.nii", "is\nbroken", "mend it")))
    assert cli.main(["doctor"]) == error.exit_code
    captured = capsys.readouterr()
    assert captured.err == "qsmnet: error: phase.nii: is broken. Fix: mend it\n"
    assert captured.out == ""


def test_exit_codes_tell_the_kinds_apart():
    codes = [e.exit_code for e in ERRORS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_traceback_only_on_request(verb, capsys, monkeypatch, how):
    verb(raises(errors.UsageError("a", "b", "c")))
    cli.main(["doctor"])
    assert "Traceback" not in capsys.readouterr().err
    if how == "variable":
        monkeypatch.setenv("QSMNET_DEBUG", "1")
    cli.main(["doctor", "--debug"] if how == "option" else ["doctor"])
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_one_line_too(verb, capsys):
    verb(raises(ZeroDivisionError("oh")))
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: oh" in text
    assert "--debug" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
    ids=["python", "torch"],
)
def test_memory_has_its_code(verb, capsys, error):
    verb(raises(error))
    assert cli.main(["doctor"]) == 7
    assert "not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (SystemExit(2), 2),
        (SystemExit(), 0),
        (SystemExit("no"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_stops(verb, capsys, monkeypatch, stop, code):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # restored after a broken pipe
    verb(raises(stop))
    assert cli.main(["doctor"]) == code


def test_log_lines_go_to_stderr_once(verb, capsys):
    import logging

    def talk(_argv):
        logging.getLogger("qsmnet.io.nifti").warning("mask is soft")
        logging.getLogger("qsmnet.io.nifti").debug("not shown")

    verb(talk)
    before = list(logging.getLogger("qsmnet").handlers)
    cli.main(["doctor"])
    assert capsys.readouterr().err == "qsmnet: mask is soft\n"
    assert logging.getLogger("qsmnet").handlers == before


def test_matplotlib_is_told_to_draw_without_display(verb, monkeypatch, tmp_path):
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    verb(lambda _argv: None)
    cli.main(["doctor"])
    assert os.environ["MPLBACKEND"] == "Agg"
    assert "MPLCONFIGDIR" not in os.environ


def test_unwritable_home(verb, monkeypatch, tmp_path):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("MPLCONFIGDIR", "registers the variable for restoring")
    monkeypatch.delenv("MPLCONFIGDIR")
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    verb(lambda _argv: None)
    cli.main(["doctor"])
    folder = Path(os.environ["MPLCONFIGDIR"])
    assert os.access(folder, os.W_OK)
    folder.rmdir()


def test_signal_handler_is_restored(verb):
    before = signal.getsignal(signal.SIGTERM)
    verb(lambda _argv: None)
    cli.main(["doctor"])
    assert signal.getsignal(signal.SIGTERM) is before


STUCK = """
import sys, time, types
from qsmnet import cli
from qsmnet.io.files import atomic_write

def main(argv):
    with atomic_write(argv[0]) as temporary:
        temporary.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)

module = types.ModuleType("qsmnet.cli.doctor")
module.main = main
sys.modules["qsmnet.cli.doctor"] = module
sys.exit(cli.main(["doctor", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_remove_temporary_files(tmp_path, number, code):
    command = [sys.executable, "-c", STUCK, str(tmp_path / "chi.nii")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        assert process.wait(30) == code
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from qsmnet.cli import main; main(['--help']);"
        "print(*{'torch', 'hydra', 'lightning', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_module_runs_as_a_program():
    command = [sys.executable, "-m", "qsmnet.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert qsmnet.__version__ in done.stdout
