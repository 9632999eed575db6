"""Classical maps that networks start from, on the network's own grid, weights and kernel."""

from typing import Literal, get_args

import torch
from torch import Tensor

from qsmnet.inversion.admm import Solver
from qsmnet.inversion.fidelity import Quadratic
from qsmnet.inversion.prior import TotalVariation
from qsmnet.inversion.tkd import truncated_inverse
from qsmnet.inversion.unknown_field import DataTerm, padded
from qsmnet.networks.problem import Problem, Scale, Volume

Start = Literal["zero", "tikhonov", "tkd", "tv"]

_TIKHONOV = 0.02
_THRESHOLD = 0.15
# of total variation in mm: for a noise-free field, times sigma / s, times its square. The best of a
# grid at 1 mm was 2e-5 to 5e-5 ppm mm up to 0.001 ppm of noise, 1e-4 at 0.002, 4e-4 at 0.005, 8e-4
# and more at 0.01, where s was 0.007 ppm
_NOISY = (0.02, 0.1)
# the first of these times s, or times the field's rms, which in these heads is 1.7 s
_NOISE_FREE: dict[Scale, float] = {"median": 2e-3, "rms": 1.2e-3}


def check_start(start: Start, iterations: int) -> None:
    """Raise `ValueError` unless `classical_map` knows the start and can iterate that often."""
    if start not in get_args(Start):
        raise ValueError(f"start is one of {', '.join(get_args(Start))}, got {start!r}")
    if type(iterations) is not int or iterations < 1:
        raise ValueError(f"start_iterations must be a whole number from 1, got {iterations}")


@torch.no_grad()
def classical_map(
    problem: Problem, start: Start, iterations: int, scale: Scale = "median"
) -> Volume:
    """Classical estimate of chi / s, zero outside the mask; float32, without a gradient.

    Parameters
    ----------
    problem
        The scaled field.
    start
        ``zero``; ``tikhonov`` (lambda 0.02) or ``tkd`` (threshold 0.15), one FFT pair, with the
        field taken as zero where it is unknown; ``tv``, as `qsmnet.inversion.tv.TV`, weighted and
        with the field unknown outside, a fixed number of iterations so that the map goes with the
        scale of the field.
    iterations
        Of ``tv``, two FFT pairs each.
    scale
        What the strength of ``tv`` without noise goes with: ``median``, s; ``rms``, that of the
        field over W. Where a few strong sources make all of the field, its median is next to
        nothing beside their jumps, and so few iterations want a strength of their size.
    """
    with torch.autocast(problem.field.device.type, enabled=False):
        if start == "tikhonov":
            spectrum = problem.dipole.spectrum
            return _filtered(problem, spectrum / (spectrum**2 + _TIKHONOV))
        if start == "tkd":
            return truncated_division(problem, _THRESHOLD)
        if start == "tv":
            items = range(problem.field.shape[0])
            maps = [_total_variation(problem, item, iterations, scale) for item in items]
            return torch.stack(maps)[:, None]
        return torch.zeros_like(problem.field)


@torch.no_grad()
def truncated_division(problem: Problem, threshold: float) -> Volume:
    """TKD of the scaled field (`qsmnet.inversion.tkd`), zero outside the mask."""
    return _filtered(problem, truncated_inverse(problem.dipole.spectrum, threshold))


def _filtered(problem: Problem, inverse: Tensor) -> Tensor:
    return problem.dipole.filter(problem.field, inverse) * problem.mask


def _total_variation(problem: Problem, item: int, iterations: int, scale: Scale) -> Tensor:
    data = _data_term(problem, item)
    if data.scale() == 0 or not bool(data.support.any()):
        return torch.zeros_like(problem.field[item, 0])
    fidelity = Quadratic(data)
    level = float(problem.level[item])
    strength = _NOISE_FREE[scale] * (data.scale() if scale == "rms" else 1.0)
    strength += sum(factor * level**power for power, factor in enumerate(_NOISY, 1))
    prior = TotalVariation(data, strength * fidelity.level)
    solver = Solver(data, fidelity, prior, free=False)
    # to no tolerance: what stops earlier by chance would not be homogeneous
    solver.run(iterations, 0.0)
    x, y, z = problem.dipole.shape
    return solver.chi[:x, :y, :z] * problem.mask[item, 0]


def _data_term(problem: Problem, item: int) -> DataTerm:
    dipole = problem.dipole
    field, weight, support = (
        padded(volume[item, 0], dipole.padded_shape)
        for volume in (problem.field, problem.weight, problem.mask)
    )
    geometry = problem.geometry[item]
    x, y, z = (slice(0, size) for size in dipole.shape)
    return DataTerm(field, weight, support, dipole.spectrum[item], geometry.voxel_size, (x, y, z))
