"""Outputs are whole or absent; nothing existing is replaced by accident."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qsmnet.errors import NumericalError, OutputError, ResourceError
from qsmnet.io.files import (
    atomic_write,
    prepare_output_folder,
    sha256,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_sha256(tmp_path):
    write_bytes(tmp_path / "a", b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "\u03c7 in ppm\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "\u03c7 in ppm\n".encode()


def test_temporary_name_keeps_its_suffix_and_folder(tmp_path):
    with atomic_write(tmp_path / "chi.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["chi.nii.gz"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_half_way_leaves_the_old_file(tmp_path, failure):
    target = tmp_path / "chi.nii"
    write_bytes(target, b"old")

    def fail():
        with atomic_write(target, overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["chi.nii"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "chi.nii"
    write_bytes(target, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="too large") as caught:
            write_bytes(target, bytes(10_000), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 7
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["chi.nii"]


def test_a_failing_rename_leaves_the_old_file(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="permission denied"):
        write_bytes(tmp_path / "a", b"new", overwrite=True)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_bytes_that_read_back_differently_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("qsmnet.io.files.sha256", lambda _: "0" * 64)
    with pytest.raises(OutputError, match="read back"):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == []


def test_kill_leaves_the_old_file(tmp_path):
    target = tmp_path / "chi.nii"
    write_bytes(target, b"old")
    code = (
        "import sys, os, signal\n"
        "from qsmnet.io.files import atomic_write\n"
        "with atomic_write(sys.argv[1], overwrite=True) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


def test_existing_files_need_overwrite(tmp_path):
    write_text(tmp_path / "a.txt", "1")
    with pytest.raises(OutputError, match="exists already") as caught:
        write_text(tmp_path / "a.txt", "2")
    assert caught.value.exit_code == 8
    write_text(tmp_path / "a.txt", "2", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "2"


def test_dangling_links_and_folders_are_not_written_through(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(OutputError):
            write_text(tmp_path / name, "1")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    def race():
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_bytes(b"mine")
            (tmp_path / "a").write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        race()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert names(tmp_path) == ["a"]


# --- the folder, before anything is computed ------------------------------------------------------


def test_prepare_creates_nothing(tmp_path):
    folder = prepare_output_folder(tmp_path / "a" / "b", ["chi.nii.gz"])
    assert folder == tmp_path / "a" / "b"
    assert names(tmp_path) == []


def test_prepare_checks_every_output(tmp_path):
    write_text(tmp_path / "report.png", "")
    files = ["chi.nii.gz", "chi.json", "report.png"]
    with pytest.raises(OutputError, match=r"report\.png: exists already"):
        prepare_output_folder(tmp_path, files)
    prepare_output_folder(tmp_path, files, overwrite=True)


def test_prepare_refuses_a_file_as_folder(tmp_path):
    write_text(tmp_path / "file", "")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is a file"):
            prepare_output_folder(folder, ["chi.nii.gz"])


def test_prepare_refuses_an_unwritable_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(OutputError, match="not writable"):
        prepare_output_folder(tmp_path, ["chi.nii.gz"])


def test_prepare_refuses_a_link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(OutputError, match="link to nothing"):
            prepare_output_folder(folder, ["chi.nii.gz"])
    assert names(tmp_path) == ["link"]


def test_prepare_refuses_what_permissions_do_not_tell(tmp_path):
    # a name that the file system does not take; as /proc, where root seems to be allowed to write
    for folder, file in ((tmp_path / "new" / ("a" * 300), "a"), (tmp_path, "a" * 300)):
        with pytest.raises(OutputError, match="too long"):
            prepare_output_folder(folder, [file])
    assert names(tmp_path) == []


def test_prepare_never_replaces_an_input(tmp_path):
    write_text(tmp_path / "field.nii", "")
    with pytest.raises(OutputError, match="also an input"):
        prepare_output_folder(
            tmp_path, ["field.nii"], overwrite=True, inputs=[tmp_path / "." / "field.nii"]
        )


def test_prepare_asks_for_space(tmp_path):
    with pytest.raises(ResourceError, match="MiB free"):
        prepare_output_folder(tmp_path / "new", ["a"], needed_bytes=2**60)


# --- JSON -----------------------------------------------------------------------------------------


def test_json_of_arrays_and_paths(tmp_path):
    content = {
        "a": np.float32(0.5),
        "b": np.arange(3),
        "c": torch.ones(2),
        "d": tmp_path / "john_doe" / "f.nii",
        "e": (1, None, True),
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert "john_doe" not in text
    assert text.endswith("}\n")
    expected = {"a": 0.5, "b": [0, 1, 2], "c": [1.0, 1.0], "d": "f.nii", "e": [1, None, True]}
    assert json.loads(text) == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_refuses_nan(tmp_path, bad):
    with pytest.raises(NumericalError, match="NaN"):
        write_json(tmp_path / "a.json", {"a": bad})
    assert names(tmp_path) == []


def test_json_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "a.json", {"a": object()})
