"""``qsmnet <verb>``: one entry point, verbs imported only when they are called.

An expected failure is one line on stderr and an exit code that says its kind (see `qsmnet.errors`);
a traceback appears only with ``--debug`` or ``QSMNET_DEBUG=1``.
"""

import argparse
import atexit
import contextlib
import difflib
import importlib
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from qsmnet import __version__
from qsmnet.errors import QsmnetError, ResourceError, UsageError

#: Verb -> what it does, and one example; module qsmnet.cli.<verb> has ``main(argv) -> int | None``.
VERBS = {
    "simulate": (
        "draw phantoms and render their fields, with the truth",
        "qsmnet simulate out=heads n=4 simulator=brain seed=1",
    ),
    "train": (
        "train a network on simulated data",
        "qsmnet train experiment=smoke out=run",
    ),
    "reconstruct": (
        "a scan or a field in, a susceptibility map out",
        "qsmnet reconstruct --local-field f.nii.gz --mask m.nii.gz --inverter kqsm --out chi",
    ),
    "compare": (
        "score several inversions of one field against the truth",
        "qsmnet compare --local-field f.nii.gz --mask m.nii.gz --truth c.nii.gz"
        " --inverters tkd tv kqsm --out table",
    ),
    "demo": (
        "simulate a head, invert it in four ways, draw and score them",
        "qsmnet demo --out demo",
    ),
    "doctor": (
        "show versions, memory and device, and verify the released weights",
        "qsmnet doctor",
    ),
}

_INTERRUPTED, _TERMINATED, _BROKEN_PIPE = 130, 143, 141


class Parser(argparse.ArgumentParser):
    """argparse for the verbs with options: errors are one line, and nothing may be abbreviated."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 argparse's own
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"allow_abbrev": False, "formatter_class": raw, **settings})
        # argparse before Python 3.14 takes -3.6e-3 for an option
        self._negative_number_matcher = re.compile(
            r"^-\d+\.?\d*(e[+-]?\d+)?$|^-\.\d+(e[+-]?\d+)?$", re.IGNORECASE
        )

    def parse_args(self, *args: Any, **settings: Any) -> Any:  # noqa: ANN401 argparse's own
        """Parse as argparse does, and refuse an empty value.

        Raises
        ------
        UsageError
            If an option is unknown, missing, or has a wrong or empty value.
        """
        found = super().parse_args(*args, **settings)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            words = value if isinstance(value, list) else [value]
            if any(isinstance(word, str) and not word.strip() for word in words):
                raise UsageError(action.option_strings[-1], "is empty", "give a value")
        return found

    def error(self, message: str) -> NoReturn:
        """Raise one line instead of printing the usage."""
        raise UsageError(self.prog, message, f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 0, one of `qsmnet.errors`, 130 or 143.

    Parameters
    ----------
    argv
        Arguments after the program's name; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("QSMNET_DEBUG", "") not in ("", "0")
    arguments = [a for a in arguments if a != "--debug"]
    _draw_without_display()
    with _logging(debug), _sigterm_raises():
        try:
            return _flushed(_dispatch(arguments))
        except SystemExit as stop:  # argparse, or SIGTERM
            return _exit_code(stop)
        except KeyboardInterrupt:
            return _report("interrupted", _INTERRUPTED, debug)
        except BrokenPipeError:  # `qsmnet ... | head`: nobody reads on
            sys.stdout = None
            return _BROKEN_PIPE
        except QsmnetError as error:
            return _report(str(error), error.exit_code, debug)
        except Exception as error:  # noqa: BLE001 the last resort: one line, the rest on request
            return _unexpected(error, debug)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else UsageError.exit_code
    verb, *rest = arguments
    if verb in ("-V", "--version"):
        print(f"qsmnet {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(VERBS)}"
        raise UsageError(verb, "is not a verb of qsmnet", fix)
    with _sigint_exits():
        module = importlib.import_module(f"qsmnet.cli.{verb}")
    return module.main(rest) or 0


def _flushed(code: int) -> int:
    # what is still buffered may find a closed pipe, too
    print(end="", flush=True)
    return code


def _help() -> str:
    lines = ["usage: qsmnet VERB ...     (qsmnet VERB --help says more)", ""]
    for verb, (summary, example) in VERBS.items():
        lines += [f"  {verb:<12}{summary}", f"  {'':<12}  $ {example}"]
    lines += ["", "  --version   --debug (traceback on failure)", ""]
    lines += ["Susceptibility in ppm. For research: not a medical device."]
    return "\n".join(lines)


def _report(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("qsmnet: error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _unexpected(error: Exception, debug: bool) -> int:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        fix = "use a smaller grid or a machine with more memory"
        return _report(f"not enough memory. Fix: {fix}", ResourceError.exit_code, debug)
    return _report(f"unexpected {text}. Fix: run again with --debug and report it", 1, debug)


def _exit_code(stop: SystemExit) -> int:
    if isinstance(stop.code, str):
        return _report(stop.code, 1, debug=False)
    return stop.code or 0


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM (a cluster's time limit) into an exception, so that temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)


@contextlib.contextmanager
def _sigint_exits() -> Iterator[None]:
    """End at once on SIGINT: raised in the midst of an import, it comes out as anything."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _exit_interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit_interrupted(_signal: int, _frame: FrameType | None) -> None:
    os._exit(_report("interrupted", _INTERRUPTED, debug=False))


@contextlib.contextmanager
def _logging(debug: bool) -> Iterator[None]:
    """Send the package's log to stderr, one plain line a message."""
    logger, handler = logging.getLogger("qsmnet"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("qsmnet: %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False  # Hydra's root handler would print each line again
    # what Hydra logs of a class that cannot be found is in the error, too
    hydra, silent = logging.getLogger("hydra"), logging.NullHandler()
    hydra.addHandler(silent)
    try:
        yield
    finally:
        hydra.removeHandler(silent)
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _draw_without_display() -> None:
    """Let matplotlib, imported later, draw to files only and survive a home it cannot write to."""
    os.environ["MPLBACKEND"] = "Agg"
    home = os.path.expanduser("~")  # noqa: PTH111 Path.home() raises where there is none
    if "MPLCONFIGDIR" not in os.environ and not os.access(home, os.W_OK):
        folder = tempfile.mkdtemp(prefix="qsmnet-matplotlib-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MPLCONFIGDIR"] = folder
