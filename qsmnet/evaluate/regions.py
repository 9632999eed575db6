"""Regions of a segmentation: QSM-CI's labels, a user's own, and statistics of each region."""

import csv
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Integer

from qsmnet.errors import InconsistentError, UnreadableError

#: QSM-CI's labels, those of its head phantom; 0 is background, 12 is not used.
QSM_CI_NAMES: dict[int, str] = {
    1: "caudate nucleus",
    2: "globus pallidus",
    3: "putamen",
    4: "red nucleus",
    5: "dentate nucleus",
    6: "substantia nigra",
    7: "thalamus",
    8: "white matter",
    9: "grey matter",
    10: "csf",
    11: "blood",
    13: "bone",
    14: "air",
    15: "muscle",
    16: "calcification",
}

# names as atlases spell them, after `_plain`
_SYNONYMS: dict[str, int] = {
    "caudate": 1,
    "pallidum": 2,
    "pallidus": 2,
    "dentate": 5,
    "nigra": 6,
    "thalamus proper": 7,
    "cerebral white matter": 8,
    "cerebellum white matter": 8,
    "wm": 8,
    "cerebral cortex": 9,
    "cerebellum cortex": 9,
    "cortex": 9,
    "cortical grey matter": 9,
    "gm": 9,
    "cerebrospinal fluid": 10,
    "lateral ventricle": 10,
    "3rd ventricle": 10,
    "4th ventricle": 10,
    "venous blood": 11,
    "vein": 11,
    "veins": 11,
    "vessel": 11,
    "vessels": 11,
    "skull": 13,
    "calcium": 16,
}
_BY_NAME = {name: label for label, name in QSM_CI_NAMES.items()} | _SYNONYMS

#: Regions of a user that QSM-CI does not know get this plus their own number.
OWN_REGIONS = 1000
_FEWEST_VOXELS = 10


@dataclass(frozen=True)
class Region:
    """Statistics of one map in one region, in ppm."""

    label: int
    name: str
    voxels: int
    mean: float
    standard_deviation: float
    median: float


def region_statistics(
    chi: Float[np.ndarray, "x y z"],
    segmentation: Integer[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    names: Mapping[int, str] = QSM_CI_NAMES,
) -> list[Region]:
    """Statistics in each labelled region inside ``mask``; regions below 10 voxels are left out.

    Voxels that are not finite count as 0, as they do in `qsmnet.evaluate.metrics.score`.
    """
    labels, values = (
        segmentation[mask],
        np.nan_to_num(chi[mask].astype(np.float64), posinf=0, neginf=0),
    )
    regions = []
    for label in np.unique(labels[labels != 0]).tolist():
        inside = values[labels == label]
        if inside.size >= _FEWEST_VOXELS:
            name = names.get(label, f"label-{label}")
            numbers = float(inside.mean()), float(inside.std()), float(np.median(inside))
            regions.append(Region(label, name, inside.size, *numbers))
    return regions


def read_label_table(path: str | Path) -> dict[int, str]:
    """Read a table of labels, one ``number name`` a line, with tabs, commas, semicolons or spaces.

    Lines that are empty, begin with ``#`` or form a header (no number first) are skipped; further
    columns, such as the colours of a FreeSurfer table, are ignored.

    Raises
    ------
    UnreadableError
        If the file is missing, not text, or holds no label.
    InconsistentError
        If a number has two names.
    """
    names: dict[int, str] = {}
    for line in _lines(Path(path)):
        fields = _fields(line)
        if len(fields) < 2 or not re.fullmatch(r"\d+", fields[0]):
            continue
        label = int(fields[0])
        if names.setdefault(label, fields[1]) != fields[1]:
            problem = f"label {label} has two names, {names[label]!r} and {fields[1]!r}"
            raise InconsistentError(path, problem, "keep one line a label")
    if not names:
        raise UnreadableError(path, "holds no label", "write one 'number name' a line")
    return names


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        fix = f"did you mean {near[0]}?" if near else "check the path"
        raise UnreadableError(path, "does not exist", fix) from error
    except IsADirectoryError as error:
        raise UnreadableError(path, "is a folder", "name a table in it") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(path, "is not text", "save the table as UTF-8") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnreadableError(path, f"cannot be read: {reason}", "check the file") from error


def _fields(line: str) -> list[str]:
    line = line.strip()
    if line.startswith("#"):
        return []
    for separator in "\t,;":
        if separator in line:
            return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    # 'number name R G B A' as FreeSurfer writes it, or a name of several words
    match = re.fullmatch(r"(\d+)\s+(.*?)(?:\s+\d+){0,4}", line)
    return list(match.groups()) if match else []


def to_qsm_ci(
    segmentation: npt.NDArray[np.integer], names: Mapping[int, str], source: str | Path
) -> tuple[npt.NDArray[np.int32], dict[int, str]]:
    """Renumber a user's segmentation to QSM-CI's labels.

    A name that QSM-CI or the usual synonyms know ("Left-Putamen", "GM"), or that is itself one of
    its numbers, gets that label, so that several of the user's labels may join in one. Any other
    region keeps its name under the label 1000 + its number: it has statistics, and no score.

    Parameters
    ----------
    segmentation
        The user's labels; 0 is background.
    names
        Name of each label, from `read_label_table`.
    source
        The segmentation's file, for the error.

    Returns
    -------
    tuple
        The new segmentation, and the name of each label in it.

    Raises
    ------
    InconsistentError
        If the segmentation holds a label that the table does not name.
    """
    present = [label for label in np.unique(segmentation).tolist() if label != 0]
    unnamed = [label for label in present if label not in names]
    if unnamed:
        shown = ", ".join(map(str, unnamed[:5]))
        raise InconsistentError(
            source, f"labels {shown} have no name", "add them to the label table"
        )
    renumbered = np.zeros(segmentation.shape, dtype=np.int32)
    known: dict[int, str] = {}
    for label in present:
        target = qsm_ci_label(names[label]) or OWN_REGIONS + label
        known[target] = QSM_CI_NAMES.get(target, names[label])
        renumbered[segmentation == label] = target
    return renumbered, known


def qsm_ci_label(name: str) -> int | None:
    """QSM-CI's label of a region by its name, its synonym or its number; None where it has none."""
    plain = _plain(name)
    if plain.isdigit():
        return int(plain) if int(plain) in QSM_CI_NAMES else None
    return _BY_NAME.get(plain)


def _plain(name: str) -> str:
    """Lower case, British, without side, underscores and hyphens."""
    words = re.sub(r"[\s_\-*]+", " ", name.lower().replace("gray", "grey")).split()
    return " ".join(
        word for word in words if word not in {"left", "right", "lh", "rh", "ctx", "l", "r"}
    )
