"""The automatic strength against a grid."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.evaluate.automatic import AgainstGrid, against_grid
from qsmnet.geometry import Geometry
from qsmnet.inversion.tv import TV
from qsmnet.volumes import LocalField


def test_ratio_is_to_the_best_of_the_grid() -> None:
    found = AgainstGrid("threshold", 0.2, 33.0, 3, {0.1: 40.0, 0.2: 32.0, 0.3: 30.0}, 41.0)
    assert found.best == 0.3
    assert found.ratio == pytest.approx(1.1)
    assert found.row()["best_nrmse"] == "30.00"


def test_scores_every_value_and_the_choice() -> None:
    generator = torch.Generator().manual_seed(0)
    chi = torch.zeros(24, 24, 24)
    chi[6:18, 6:18, 6:18] = 0.05
    chi[9:14, 9:14, 9:14] = 0.2
    geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.1, 1.0))
    field = Dipole(chi.shape, geometry, padding=2.0).forward(chi)
    field += 0.002 * torch.randn(chi.shape, generator=generator)
    local = LocalField(field * (chi > 0), chi > 0, geometry, noise=0.002)
    found = against_grid(TV(), local, chi, [1e-5, 2e-4, 1e-1])
    assert found.parameter == "regularisation"
    assert found.best == 2e-4
    assert found.solves >= 1
    assert found.automatic < min(found.grid[1e-5], found.grid[1e-1])


@pytest.mark.slow
def test_study_runs(tmp_path: Path) -> None:
    study = Path(__file__).parents[2] / "simulations/automatic_regularisation/run.py"
    command = [sys.executable, str(study), "--smoke", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    assert len((tmp_path / "results.csv").read_text().splitlines()) > 3
