"""Rows of a long study, appended one by one, so that it can be stopped and resumed at any time."""

import csv
import io
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmnet.errors import UsageError
from qsmnet.evaluate.cost import Measured


class Ledger:
    """A CSV file that only grows; the last row of a key counts.

    Several processes may append to one file: a row is one write. A row that a kill cut short is
    ignored, and does not spoil the next.

    Parameters
    ----------
    path
        The file; made with the first row.
    columns
        Its header.
    key
        How many of the first columns tell rows apart.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: int) -> None:
        self.path = path
        self.columns = tuple(columns)
        self._key = key

    def rows(self) -> dict[tuple[str, ...], dict[str, str]]:
        """Rows by key, as text."""
        return {tuple(row[: self._key]): self._named(row) for row in self._complete()}

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row; columns that it lacks stay empty."""
        lines = [[str(row.get(column, "")) for column in self.columns]]
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines.insert(0, list(self.columns))
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(lines)
        text = stream.getvalue()
        with self.path.open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() and not self._ends_with_newline():
                text = "\n" + text
            file.write(text.encode())

    def _complete(self) -> Iterator[list[str]]:
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if len(row) == len(self.columns) and tuple(row) != self.columns:
                    yield row

    def _named(self, row: Sequence[str]) -> dict[str, str]:
        return dict(zip(self.columns, row, strict=True))

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def cells(measured: Measured[Any], scores: Mapping[str, float]) -> dict[str, object]:
    """Scores, cost and failure of one call as a row's cells."""
    values: dict[str, object] = {name: f"{value:.6g}" for name, value in scores.items()}
    return values | {
        "seconds": f"{measured.seconds:.3f}",
        "peak_memory_mib": f"{measured.peak_memory_mib:.0f}",
        "error": measured.error,
    }


def source_commit() -> str:
    """Commit of the source tree and whether it was changed; ``unknown`` outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def check_known(options: Mapping[str, tuple[Collection[Any] | None, Collection[Any]]]) -> None:
    """Refuse values of options that a study does not have; ``options`` holds given and valid.

    Raises
    ------
    UsageError
        With the valid ones.
    """
    for option, (given, valid) in options.items():
        unknown = [str(each) for each in given or () if each not in valid]
        if unknown:
            fix = f"there are: {', '.join(map(str, valid))}"
            raise UsageError(option, f"{', '.join(unknown)} is not known", fix)
