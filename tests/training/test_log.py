"""metrics.csv: appended, and rewound when a run resumes."""

import pytest

from qsmnet.errors import UnreadableError
from qsmnet.training.log import MetricsLog, read_metrics


def test_numbers_are_appended_and_read_back(tmp_path):
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path)
    log.log_metrics({"train/loss": 0.5, "epoch": 0.0}, 9)
    MetricsLog(path).log_metrics({"val/nrmse": 42.123456789}, 19)
    assert read_metrics(path) == [(9, "train/loss", 0.5), (19, "val/nrmse", 42.1235)]
    assert path.read_text().splitlines()[0] == "step,name,value"


def test_rewinding_drops_what_comes_again(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    for step in (9, 19, 29):
        log.log_metrics({"train/loss": float(step)}, step)
    log.rewind(20)
    assert [row[0] for row in read_metrics(log.path)] == [9, 19]
    log.log_metrics({"train/loss": 1.0}, 29)
    assert [row[0] for row in read_metrics(log.path)] == [9, 19, 29]


def test_a_row_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    MetricsLog(path).log_metrics({"train/loss": 0.5}, 9)
    path.write_text(path.read_text() + "19,train/lo")
    assert read_metrics(path) == [(9, "train/loss", 0.5)]
    MetricsLog(path).rewind(50)
    MetricsLog(path).log_metrics({"train/loss": 0.25}, 19)
    assert read_metrics(path) == [(9, "train/loss", 0.5), (19, "train/loss", 0.25)]


def test_what_is_no_log_is_refused_and_kept(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,name,value\nx,train/loss,1\n")
    with pytest.raises(UnreadableError, match=r"metrics\.csv: is damaged"):
        MetricsLog(path).rewind(5)
    assert path.read_text() == "step,name,value\nx,train/loss,1\n"


def test_rewinding_nothing_makes_no_file(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    log.rewind(5)
    assert not log.path.exists()
    assert log.name == log.version == ""
