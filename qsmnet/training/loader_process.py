"""What a process that loads training items is to do about threads, signals and its end."""

import atexit
import os
import signal
import sys
from types import TracebackType

import torch


def prepare_process(_: int) -> None:
    """Set up a loader's process, whatever its number."""
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group of processes; the one that trains ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _but_for_lost_connections
    # a run ends with items on their way: Python, when it ends, would stop the thread that sends
    # them in the midst of torch's code, which aborts
    atexit.register(os._exit, 0)


def _but_for_lost_connections(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an error of the thread that hands over items, unless nobody took the item.

    A signal may end the training process in the midst of taking one: no news of the run.
    """
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
