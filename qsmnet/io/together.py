"""Output files of one run: they appear together or not at all, and take the place of the last's."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmnet.errors import QsmnetError
from qsmnet.io.files import prepare_output_folder, scratch_folder, sha256, write_error, write_json


@contextlib.contextmanager
def written_together(
    folder: Path,
    verb: str,
    record_name: str,
    record: Mapping[str, object],
    overwrite: bool = False,
    inputs: Iterable[str | Path] = (),
) -> Iterator[Path]:
    """Give an empty folder to write in; on success, move its files to ``folder`` with a record.

    With ``overwrite`` the files of an earlier run of the same verb go, those with a new one of the
    same name and those without. Only what the earlier record lists, and what has the SHA-256 that
    it was written with: nothing that a user has put there or changed. On any failure, a signal
    turned into an exception included, ``folder`` is as it was.

    Parameters
    ----------
    folder
        Where the files go; it need not exist.
    verb
        Who writes: only files of the same verb are taken for earlier ones.
    record_name, record
        Name and content of the JSON record; ``verb`` and ``outputs`` (names and hashes) are added.
    overwrite
        Allow files that exist to be replaced.
    inputs
        Files that were read, which never go.

    Raises
    ------
    OutputError, ResourceError
        If a file exists or cannot be written.
    """
    with scratch_folder(folder) as scratch, _named_as_final(scratch, folder):
        yield scratch
        outputs = [{"file": p.name, "sha256": sha256(p)} for p in sorted(scratch.iterdir())]
        content = {**record, "verb": verb, "outputs": outputs}
        write_json(scratch / record_name, content)
        names = [each.name for each in scratch.iterdir()]
        prepare_output_folder(folder, names, overwrite, inputs)
        earlier = _earlier(folder / record_name, verb, inputs) if overwrite else []
        _exchange(scratch, folder, names, [name for name in earlier if name not in names])


@contextlib.contextmanager
def _named_as_final(scratch: Path, folder: Path) -> Iterator[None]:
    """Let errors name the file that was to be, not the temporary one."""
    try:
        yield
    except QsmnetError as error:
        source = error.source.replace(str(scratch), str(folder))
        raise type(error)(source, error.problem, error.fix) from error
    except OSError as error:
        raise write_error(folder, error) from error


def _earlier(record: Path, verb: str, inputs: Iterable[str | Path]) -> list[str]:
    """Names of the files beside ``record`` that it lists, unchanged since, and not ``inputs``."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or none of ours
        return []
    if not isinstance(content, dict) or content.get("verb") != verb:
        return []
    read = {Path(each).resolve() for each in inputs}
    listed = content.get("outputs")
    items = listed if isinstance(listed, list) else []
    names = [item["file"] for item in items if _is_unchanged(record.parent, item)]
    return [name for name in names if (record.parent / name).resolve() not in read]


def _is_unchanged(folder: Path, item: Any) -> bool:  # noqa: ANN401 read from a file
    name = item.get("file") if isinstance(item, dict) else None
    if not isinstance(name, str) or name != Path(name).name:  # a name, not a way elsewhere
        return False
    path = folder / name
    return path.is_file() and not path.is_symlink() and sha256(path) == item.get("sha256")


def _exchange(source: Path, folder: Path, names: Sequence[str], stale: Sequence[str]) -> None:
    """Move ``names`` in, what they replace and ``stale`` out; undone if one cannot be moved."""
    aside = Path(tempfile.mkdtemp(prefix=".qsmnet-", dir=folder))
    moved: list[tuple[Path, Path]] = []

    def move(old: Path, new: Path) -> None:
        old.replace(new)
        moved.append((old, new))

    try:
        for name in (*names, *stale):
            if (folder / name).exists() or (folder / name).is_symlink():
                move(folder / name, aside / name)
        for name in names:
            move(source / name, folder / name)
    except BaseException:
        for old, new in reversed(moved):
            new.replace(old)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
