"""A run that would not fit is refused before it works."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import memory_of_echoes
import numpy as np
import pytest
import torch

from qsmnet.cli import main, reconstruct_memory
from qsmnet.cli.compose import available, compose
from qsmnet.cli.reconstruct_memory import (
    available_bytes,
    check_memory,
    echo_voxels,
    held_bytes,
    predicted_bytes,
    working_voxels,
)
from qsmnet.errors import ResourceError
from qsmnet.evaluate.cost import measure
from qsmnet.geometry import Geometry
from qsmnet.pipeline import Pipeline
from qsmnet.volumes import LocalField

GB = 10**9


OF_ECHOES = ["offset", "unwrap", "fit", "r2star"]


@pytest.mark.parametrize("group", ["inverter", "background", *OF_ECHOES])
def test_every_method_is_measured(group: str) -> None:
    """One that is new: python scripts/memory.py --write GROUP/NAME."""
    table = reconstruct_memory._table()
    assert set(table[group]) == set(available(group))
    bytes_of = {name: np.sum(entry["bytes"]) for name, entry in table[group].items()}
    assert all(number > 8 for name, number in bytes_of.items() if name != "none")


def test_grid_is_the_volume_or_the_padded_box_of_the_mask() -> None:
    mask = torch.zeros((100, 80, 60), dtype=torch.bool)
    mask[10:50, 20:60, 5:45] = True
    assert working_voxels(compose("inverter", "tv"), "mask", mask) == 50**3
    assert working_voxels(compose("inverter", "tkd"), "volume", mask) == 100 * 80 * 60
    assert working_voxels(object(), "volume", mask) == 100 * 80 * 60
    doubled = compose("inverter", "tv", ["padding=2"])
    assert predicted_bytes("inverter", "tv", doubled, mask) == pytest.approx(
        predicted_bytes("inverter", "tv", compose("inverter", "tv"), mask) * (80 / 50) ** 3
    )
    assert predicted_bytes("inverter", "my_own", object(), mask) == 0


@pytest.mark.parametrize("name", ["tv", "rts"])
def test_prediction_is_near_what_is_used(name: str) -> None:
    shape = (96, 96, 96)
    mask = torch.ones(shape, dtype=torch.bool)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    local = LocalField(
        0.01 * noise, mask, Geometry((1, 1, 1), (0, 0, 1)), magnitude=1 + noise.abs()
    )
    few = compose("inverter", name, ["max_iterations=2"])
    few(local)
    used = measure(lambda: few(local)).peak_memory_mib * 2**20
    assert used == pytest.approx(predicted_bytes("inverter", name, few, mask), rel=0.3)
    assert held_bytes("inverter", local) > 4 * math.prod(shape)


def test_prediction_of_a_scan_is_near_what_is_used() -> None:
    """Of single stages, and of a whole run: its most demanding one beside what others have left."""
    if sys.platform != "linux":
        pytest.skip("the setting is of Linux' C library")
    done = subprocess.run(
        [sys.executable, memory_of_echoes.__file__],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | memory_of_echoes.ENVIRONMENT,
    )
    for name, (used, predicted) in json.loads(done.stdout).items():
        assert used == pytest.approx(predicted, rel=0.3), name


def test_echoes_and_mask_both_count() -> None:
    mask = torch.zeros((10, 10, 10), dtype=torch.bool)
    mask[:5] = True
    assert echo_voxels(mask, 3) == (1000, 3000, 500, 1500)
    few, many = (predicted_bytes("fit", "line", object(), mask, echoes) for echoes in (3, 6))
    assert 1.5 < many / few <= 2
    assert predicted_bytes("fit", "line", object(), ~mask, 3) == few
    assert predicted_bytes("fit", "line", object(), mask | True, 3) > 1.5 * few


def test_what_a_scan_takes_is_told_by_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan, mask = memory_of_echoes.scan_of(16, 6)
    monkeypatch.setattr(reconstruct_memory, "available_bytes", lambda: 0)
    monkeypatch.setattr(reconstruct_memory, "_LEAST", 0)
    stages: dict[tuple[str, str], object] = {("fit", "line"): 0, ("inverter", "tkd"): 0}
    with pytest.raises(ResourceError, match=r"fit line needs .* close other programs; --no"):
        check_memory(stages, scan, mask)
    with pytest.raises(ResourceError, match=r"r2star nlls needs .* such as --r2star arlo"):
        check_memory({**stages, ("r2star", "nlls"): 0}, scan, mask)


@pytest.fixture
def arguments(write_nifti: Callable[..., Path], tmp_path: Path) -> list[str]:
    shape = (64, 64, 64)
    field = np.random.default_rng(0).normal(0, 0.01, shape).astype(np.float32)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[4:60, 4:60, 4:60] = 1
    files = ["--local-field", str(write_nifti("field.nii.gz", field))]
    files += ["--mask", str(write_nifti("mask.nii.gz", mask))]
    return ["reconstruct", *files, "--out", str(tmp_path / "out"), "--inverter"]


def test_what_does_not_fit_is_refused_before_it_works(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(reconstruct_memory, "available_bytes", lambda: 0.01 * GB)
    monkeypatch.setattr(reconstruct_memory, "_LEAST", 0)
    monkeypatch.setattr(Pipeline, "reconstruct", lambda *_: pytest.fail("it works"))
    assert main([*arguments, "tv"]) == 7
    told = capsys.readouterr().err
    assert "inverter tv needs about 0.0 GB" in told or "inverter tv needs about 0.1 GB" in told
    assert "--inverter tkd" in told
    assert not (tmp_path / "out").exists()


def test_what_fits_or_is_insisted_on_runs(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruct_memory, "_LEAST", 0)
    monkeypatch.setattr(reconstruct_memory, "available_bytes", lambda: 0.03 * GB)
    assert main([*arguments, "tkd"]) == 0
    monkeypatch.setattr(reconstruct_memory, "available_bytes", lambda: 0)
    assert main([*arguments, "tkd", "--overwrite"]) == 7
    assert main([*arguments, "tkd", "--overwrite", "--no-memory-check"]) == 0


V1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")
V2 = ("memory.max", "memory.current", "memory.stat")


@pytest.mark.parametrize(("names", "key"), [(V1, "total_inactive_file"), (V2, "inactive_file")])
def test_a_container_has_its_own_limit(names: tuple[str, ...], key: str, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    free = available_bytes(tmp_path)
    assert math.isfinite(free)
    for name, text in zip(
        names, ("5000000\n", "3000000\n", f"anon 7\n{key} 1000000\n"), strict=True
    ):
        (tmp_path / name).write_text(text)
    assert available_bytes(tmp_path) == 3_000_000
    (tmp_path / names[0]).write_text("max\n")
    assert available_bytes(tmp_path) > 3_000_000
