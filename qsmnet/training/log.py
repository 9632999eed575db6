"""A run's numbers as CSV, appended: a resumed run goes on in the same file."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from qsmnet.errors import UnreadableError
from qsmnet.io.files import atomic_write

_COLUMNS = ("step", "name", "value")


class MetricsLog(Logger):
    """``metrics.csv`` with one row a number: step, name, value.

    Parameters
    ----------
    path
        Appended to; rows of steps that a resumed run will repeat are dropped by `rewind`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """No folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row a number; Lightning's own epoch counter is left out."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if is_new:
                writer.writerow(_COLUMNS)
            rows = [(step, k, f"{float(v):.6g}") for k, v in metrics.items() if k != "epoch"]
            writer.writerows(rows)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: object, **__: object) -> None:
        """Do nothing: the run's config.yaml has them."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop rows at or after ``step``: they were written after the checkpoint and come again."""
        if not self.path.exists():
            return
        kept = [row for row in read_metrics(self.path) if row[0] < step]
        with (
            atomic_write(self.path, overwrite=True) as part,
            part.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.writer(stream)
            writer.writerow(_COLUMNS)
            writer.writerows((s, n, f"{v:.6g}") for s, n, v in kept)


def read_metrics(path: Path) -> list[tuple[int, str, float]]:
    """Rows of a ``metrics.csv``: step, name, value.

    Raises
    ------
    UnreadableError
        If it holds anything else; a last row that a full disk cut short is left out.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    if rows and len(rows[-1]) < len(_COLUMNS):
        rows.pop()
    try:
        return [(int(step), name, float(value)) for step, name, value in rows[1:]]
    except ValueError as error:
        fix = "remove the file: the run goes on without its past"
        raise UnreadableError(path, f"is damaged: {error}", fix) from error
