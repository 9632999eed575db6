"""What can be wrong with a user's input, and the exit code that says which kind it is.

Every error is one line: the file (or option), what is wrong, and how to fix it.
"""

from pathlib import Path


class QsmnetError(Exception):
    """An expected failure: shown to the user as one line, never as a traceback.

    Parameters
    ----------
    source
        The file or option that is wrong.
    problem
        What is wrong with it.
    fix
        What the user can do about it.
    """

    exit_code = 1

    def __init__(self, source: str | Path, problem: str, fix: str) -> None:
        self.source, self.problem, self.fix = str(source), problem, fix
        super().__init__(f"{source}: {problem}. Fix: {fix}")


class UsageError(QsmnetError):
    """A wrong option, an unknown method or parameter, a value out of range."""

    exit_code = 2


class UnreadableError(QsmnetError):
    """An input that is missing, truncated, corrupt or empty."""

    exit_code = 3


class InconsistentError(QsmnetError):
    """Inputs that do not belong together: shapes, affines, counts, masks."""

    exit_code = 4


class PhysicsError(QsmnetError):
    """Metadata that is missing or implausible: echo times, B0, phase range, voxel size."""

    exit_code = 5


class WeightsError(QsmnetError):
    """Weights that are damaged, untrusted or made for something else."""

    exit_code = 6


class ResourceError(QsmnetError):
    """Not enough memory or disk."""

    exit_code = 7


class OutputError(QsmnetError):
    """An output that exists already or cannot be written."""

    exit_code = 8


class NumericalError(QsmnetError):
    """NaN or infinity in the data or in a result."""

    exit_code = 9
