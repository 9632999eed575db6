"""Files of one run: together or not at all, and in place of those of the run before."""

import json

import pytest

from qsmnet.errors import OutputError, UsageError
from qsmnet.io import together
from qsmnet.io.files import write_text
from qsmnet.io.together import written_together


def write(folder, *names, verb="compare", overwrite=True, inputs=(), text="new"):
    with written_together(folder, verb, "record.json", {"a": 1}, overwrite, inputs) as staging:
        for name in names:
            write_text(staging / name, text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_and_their_record_come_together(tmp_path):
    write(tmp_path / "deep" / "out", "a", "b", overwrite=False)
    out = tmp_path / "deep" / "out"
    assert names(out) == ["a", "b", "record.json"]
    record = json.loads((out / "record.json").read_text())
    assert (record["a"], record["verb"]) == (1, "compare")
    assert [each["file"] for each in record["outputs"]] == ["a", "b"]


def test_files_of_the_last_run_go_and_nothing_else(tmp_path):
    write(tmp_path, "a", "stale", "edited", "source")
    (tmp_path / "edited").write_text("by the user")
    (tmp_path / "mine").write_text("")
    write(tmp_path, "a", inputs=[tmp_path / "source"])
    assert names(tmp_path) == ["a", "edited", "mine", "record.json", "source"]


def test_files_of_another_verb_stay(tmp_path):
    write(tmp_path, "theirs", verb="demo")
    write(tmp_path, "a")
    assert names(tmp_path) == ["a", "record.json", "theirs"]


@pytest.mark.parametrize("listed", ["x", None, [3], [{"file": 1}], [{"file": "../up/x"}], [{}]])
def test_a_record_that_was_tampered_with_removes_nothing(tmp_path, listed):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "x").write_text("")
    write(tmp_path / "out", "a")
    record = {"verb": "compare", "outputs": listed}
    (tmp_path / "out" / "record.json").write_text(json.dumps(record))
    write(tmp_path / "out", "b")
    assert names(tmp_path / "out") == ["a", "b", "record.json"]
    assert names(tmp_path / "up") == ["x"]


def test_a_failure_leaves_what_there_was(tmp_path):
    def fail():
        with written_together(tmp_path / "out", "compare", "record.json", {}) as staging:
            write_text(staging / "a", "")
            raise UsageError(staging / "a", "is wrong", "mend it")

    with pytest.raises(UsageError, match=r"out/a: is wrong"):
        fail()
    assert names(tmp_path) == []


def test_a_failure_halfway_is_undone(tmp_path, monkeypatch):
    write(tmp_path, "a", "b", "stale", text="old")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    real = together.Path.replace

    def fail(self, target):
        if target == tmp_path / "b" and self.read_text() == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(together.Path, "replace", fail)
    with pytest.raises(OutputError, match="input/output error"):
        write(tmp_path, "a", "b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_nothing_is_replaced_unasked(tmp_path):
    write(tmp_path, "a", text="old")
    with pytest.raises(OutputError, match="exists already"):
        write(tmp_path, "b", "a", overwrite=False)
    assert names(tmp_path) == ["a", "record.json"]
    assert (tmp_path / "a").read_text() == "old"
