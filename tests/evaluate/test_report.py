"""The picture of a reconstruction: orientation, proportions, bytes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from qsmnet.errors import OutputError
from qsmnet.evaluate.report import Panel, save_report

SHAPE = (20, 24, 16)


def _panels() -> list[Panel]:
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return [Panel("magnitude", volume), Panel("susceptibility", volume, (-0.1, 0.1), "ppm")]


def _mask() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4:-4, 4:-4, 3:-3] = True
    return mask


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_report(tmp_path / name, _panels(), _mask(), np.eye(4), "title", ["a note"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_picture_is_the_same_however_the_grid_is_stored(tmp_path: Path) -> None:
    # flip and permute the array, and say so in the affine: the same anatomy, the same picture
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    save_report(tmp_path / "a.png", _panels(), _mask(), affine)
    turn = np.array([[0, -1, 0, SHAPE[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    # new index (z, x', y): x = n - 1 - x'

    def turned(volume: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(volume[::-1].transpose(2, 0, 1))

    panels = [Panel(p.name, turned(p.data), p.window, p.unit) for p in _panels()]
    save_report(tmp_path / "b.png", panels, turned(_mask()), affine @ turn)
    assert np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_voxels_keep_their_proportions(tmp_path: Path) -> None:
    sizes = []
    for name, edge in (("a.png", 1.0), ("b.png", 3.0)):
        save_report(tmp_path / name, _panels(), _mask(), np.diag([1.0, 1.0, edge, 1.0]))
        sizes.append(imread(tmp_path / name).shape)
    assert sizes[1][0] > 1.5 * sizes[0][0]
    assert sizes[1][1] == sizes[0][1]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        save_report(tmp_path / "a.png", _panels(), _mask(), np.eye(4))
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    save_report(tmp_path / "a.png", _panels(), _mask(), np.eye(4), overwrite=True)
    assert imread(tmp_path / "a.png").ndim == 3


def test_a_constant_volume_and_a_whole_mask_are_drawn(tmp_path: Path) -> None:
    panels = [Panel("flat", np.zeros(SHAPE, dtype=np.float32))]
    save_report(tmp_path / "a.png", panels, np.ones(SHAPE, dtype=bool), np.eye(4))
    assert (tmp_path / "a.png").exists()
