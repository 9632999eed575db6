"""Output files that are either complete or absent, and never replace anything by accident."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from qsmnet.errors import NumericalError, OutputError, QsmnetError, ResourceError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sha256(path: str | Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def prepare_output_folder(
    path: str | Path,
    files: Iterable[str],
    overwrite: bool = False,
    inputs: Iterable[str | Path] = (),
    needed_bytes: int = 0,
) -> Path:
    """Check, before anything is computed, that every output can be written; leave nothing.

    Parameters
    ----------
    path
        Output folder; it need not exist, `atomic_write` makes it.
    files
        Names of all intended outputs, relative to ``path``.
    overwrite
        Allow outputs that exist to be replaced.
    inputs
        Files that are read: an output that is one of them is refused even with ``overwrite``.
    needed_bytes
        Free disk space that the outputs need.

    Raises
    ------
    OutputError
        If the folder is a file or not writable, an output exists already, or is an input.
    ResourceError
        If less than ``needed_bytes`` is free.
    """
    folder = Path(path)
    _check_writable(folder)
    with scratch_folder(folder):  # permissions do not tell everything: /proc, quotas, long names
        pass
    outputs = [folder / name for name in files]
    _check_not_inputs(outputs, inputs)
    for output in outputs:
        _check_free(output, overwrite)
    _check_space(folder, needed_bytes)
    return folder


@contextlib.contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder in ``folder``, and remove it afterwards with all that is in it.

    ``folder`` and its parents are made where they do not exist, and go too if they stay empty.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    ResourceError
        If the disk or the quota is full.
    """
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    scratch = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".qsmnet-", dir=folder))
        except OSError as error:
            raise write_error(folder, error) from error
        yield scratch
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()


@contextlib.contextmanager
def atomic_write(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success, flush it and rename it to ``path``.

    On any failure, a signal turned into an exception included, the temporary file is removed and
    what ``path`` held before is untouched.

    Raises
    ------
    OutputError
        If ``path`` exists and ``overwrite`` is false, or the folder cannot be written.
    ResourceError
        If the disk or the quota is full.
    """
    target = Path(path)
    _check_free(target, overwrite)
    # the suffix stays last: matplotlib, nibabel and safetensors choose a format by it
    temporary = target.with_name(f".{os.getpid()}.tmp.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        _check_free(target, overwrite)
        temporary.replace(target)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _flush(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, overwrite: bool = False) -> None:
    """Write ``content`` atomically and read it back before it takes its final name.

    Raises
    ------
    OutputError
        If the file exists, cannot be written, or reads back differently.
    ResourceError
        If the disk is full.
    """
    with atomic_write(path, overwrite) as temporary:
        temporary.write_bytes(content)
        if sha256(temporary) != hashlib.sha256(content).hexdigest():
            raise OutputError(path, "read back differently from what was written", "check the disk")


def write_text(path: str | Path, text: str, overwrite: bool = False) -> None:
    """Write text as UTF-8, atomically (see `write_bytes`)."""
    write_bytes(path, text.encode(), overwrite)


def write_json(path: str | Path, content: object, overwrite: bool = False) -> None:
    """Write ``content`` as indented JSON, atomically.

    Paths become their file name only: a folder often names a patient or a user.

    Raises
    ------
    NumericalError
        If a number is NaN or infinite, which JSON cannot hold.
    OutputError, ResourceError
        As `write_bytes`.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False, default=_plain)
    except ValueError as error:
        raise NumericalError(
            path, f"cannot be written: {error}", "look for NaN in the result"
        ) from error
    write_text(path, text + "\n", overwrite)


def write_error(target: Path, error: OSError) -> QsmnetError:
    """Give the error, in this package's words, of a file or folder that could not be written."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return ResourceError(target, f"cannot be written: {reason.lower()}", "free some disk space")
    return OutputError(target, f"cannot be written: {reason.lower()}", "check the output folder")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _check_free(target: Path, overwrite: bool) -> None:
    try:
        is_folder, is_there = target.is_dir(), target.exists() or target.is_symlink()
    except OSError as error:
        raise write_error(target, error) from error
    if is_folder:
        raise OutputError(target, "is a folder", "name a file")
    if not overwrite and is_there:
        raise OutputError(target, "exists already", "choose another folder or pass --overwrite")


def _check_writable(folder: Path) -> None:
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if existing.is_symlink() and not os.path.exists(existing):  # noqa: PTH110 exists() may raise
        raise OutputError(existing, "is a link to nothing", "remove it, or name another folder")
    if not existing.is_dir():
        raise OutputError(existing, "is a file where a folder is needed", "name another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(existing, "is not writable", "name a folder you may write to")


def _check_not_inputs(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    sources = {Path(source).resolve() for source in inputs}
    for output in outputs:
        if output.resolve() in sources:
            raise OutputError(output, "is also an input", "name another output folder")


def _check_space(folder: Path, needed_bytes: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        have, need = free / 2**20, needed_bytes / 2**20
        raise ResourceError(folder, f"{have:.0f} MiB free, {need:.0f} needed", "free some space")


def _flush(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
