"""Label schemes and statistics of regions."""

import numpy as np
import pytest
from qsm_ci.qsm_eval import DSEG_LABELS, region_stats

from qsmnet.errors import InconsistentError, UnreadableError
from qsmnet.evaluate.regions import (
    QSM_CI_NAMES,
    qsm_ci_label,
    read_label_table,
    region_statistics,
    to_qsm_ci,
)
from qsmnet.simulate import tissue


def test_names_are_those_of_qsm_ci():
    assert {label: name.lower() for label, name in DSEG_LABELS.items()} == QSM_CI_NAMES


def test_the_simulator_writes_the_same_labels():
    read = {label: qsm_ci_label(name) for label, name in tissue.NAMES.items()}
    # what the scheme has no number for is nothing that it has
    assert {label: found for label, found in read.items() if found not in (label, None)} == {}
    assert {label for label, found in read.items() if found is None}.isdisjoint(QSM_CI_NAMES)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Left-Putamen", 3),
        ("Right-Thalamus-Proper*", 7),
        ("Right-Cerebral-White-Matter", 8),
        ("Gray matter", 9),
        ("ctx-lh-cortex", 9),
        ("substantia_nigra", 6),
        ("SN", None),
        ("16", 16),
        ("12", None),
        ("Left-Hippocampus", None),
    ],
)
def test_names_as_atlases_spell_them(name, label):
    assert qsm_ci_label(name) == label


@pytest.mark.parametrize(
    "text",
    [
        "label\tname\n12\tLeft-Putamen\n17\tLeft-Hippocampus\n",
        "label,name\n12,Left-Putamen\n17,Left-Hippocampus\n",
        "# FreeSurfer\n\n12  Left-Putamen   236 13 176 0\n17  Left-Hippocampus  220 216 20 0\n",
        "\ufeff12;Left-Putamen;x\n17;Left-Hippocampus;y\n",
    ],
)
def test_tables_in_the_usual_shapes(tmp_path, text):
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8")
    assert read_label_table(path) == {12: "Left-Putamen", 17: "Left-Hippocampus"}


def test_names_of_several_words(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("3 red nucleus\n4 area 4\n")
    # a number at the end cannot be told from a colour without a separator
    assert read_label_table(path) == {3: "red nucleus", 4: "area"}


def test_own_labels_become_qsm_ci_ones():
    seg = np.array([0, 12, 51, 17]).reshape(4, 1, 1)
    names = {12: "Left-Putamen", 51: "Right-Putamen", 17: "Left-Hippocampus", 99: "unused"}
    renumbered, known = to_qsm_ci(seg, names, "seg.nii.gz")
    assert renumbered.ravel().tolist() == [0, 3, 3, 1017]
    assert known == {3: "putamen", 1017: "Left-Hippocampus"}


def test_a_label_without_a_name_is_refused():
    with pytest.raises(InconsistentError, match="labels 5 have no name"):
        to_qsm_ci(np.array([[[5]]]), {1: "caudate"}, "seg.nii.gz")


def test_bad_tables(tmp_path):
    path = tmp_path / "labels.tsv"
    with pytest.raises(UnreadableError, match="does not exist"):
        read_label_table(path)
    with pytest.raises(UnreadableError, match="is a folder"):
        read_label_table(tmp_path)
    path.write_text("no numbers here\n")
    with pytest.raises(UnreadableError, match="holds no label"):
        read_label_table(path)
    path.write_text("1\ta\n1\tb\n")
    with pytest.raises(InconsistentError, match="two names"):
        read_label_table(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UnreadableError, match="not text"):
        read_label_table(path)


def test_statistics_equal_the_oracle():
    rng = np.random.default_rng(0)
    chi = rng.normal(0, 0.1, (12, 12, 12))
    seg = rng.integers(0, 5, chi.shape)
    seg[0, 0, :9] = 13  # below ten voxels: left out
    mask = rng.random(chi.shape) < 0.8
    found = {str(r.label): r for r in region_statistics(chi, seg, mask)}
    expected = region_stats(chi, seg, mask)
    assert set(found) == set(expected)
    for label, numbers in expected.items():
        region = found[label]
        assert region.voxels == numbers["n"]
        assert region.mean == pytest.approx(numbers["mean"], abs=1e-6)
        assert region.standard_deviation == pytest.approx(numbers["std"], abs=1e-6)
        assert region.median == pytest.approx(numbers["median"], abs=1e-6)
