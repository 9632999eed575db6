r"""Multi-echo signal of a head on its fine grid, as a scanner samples it.

.. math:: s_e = A\, e^{-TE_e R_2^*}\, e^{i(\phi_0 + 2\pi\gamma B_0 TE_e \delta 10^{-6})}

with the steady state A, cut in k-space to the scan's grid, so that partial volume, dephasing within
a voxel and truncation are those of a scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from qsmnet.phase.echoes import weighted_line
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.kspace import crop_spectrum_along, slabs
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import white_noise
from qsmnet.units import radians_per_ppm


@dataclass(frozen=True)
class Source:
    """What the signal is made of, on the fine grid.

    Parameters
    ----------
    amplitude
        Signal at TE = 0.
    r2star
        In 1/s.
    field
        In ppm.
    """

    amplitude: Float[Tensor, "x y z"]
    r2star: Float[Tensor, "x y z"]
    field: Float[Tensor, "x y z"]


def acquire(
    source: Source, grid: Grid, protocol: Protocol, offset: Record, factor: int
) -> Complex[Tensor, "echo x y z"]:
    """Noise-free complex echoes on the scan's grid; the fine grid is worked through in slabs."""
    x, y, z = (n // factor for n in grid.shape)
    echoes = torch.zeros((len(protocol.echo_times), grid.shape[0], y, z), dtype=torch.complex64)
    for rows, piece in slabs(grid):
        phase = phase_offset(offset, piece)
        for number, time in enumerate(protocol.echo_times):
            decay = source.amplitude[rows] * torch.exp(-time * source.r2star[rows])
            turned = phase + radians_per_ppm(time, protocol.b0) * source.field[rows]
            signal = crop_spectrum_along(torch.polar(decay, turned), -1, factor)
            echoes[number, rows] = crop_spectrum_along(signal, -2, factor)
    cropped = [crop_spectrum_along(echo, -3, factor) for echo in echoes]
    return torch.stack(cropped).reshape(-1, x, y, z)


def draw_phase_offset(rng: np.random.Generator) -> Record:
    """Draw the phase at TE = 0: a bowl, as transmit and receive coils make, and a gradient."""
    return {
        "constant": float(rng.uniform(-np.pi, np.pi)),
        "linear": rng.normal(0, 0.6, 3).tolist(),
        "quadratic": rng.normal(0, 0.4, 3).tolist(),
        "bowl": float(rng.uniform(-1.2, -0.6) * np.pi),
    }


def phase_offset(record: Record, grid: Grid) -> Float[Tensor, "x y z"]:
    """Phase at TE = 0 in rad: a polynomial of second order in space, per 100 mm."""
    axes = [grid.axis(i) / 100.0 for i in range(3)]
    total = torch.full(grid.shape, float(record["constant"]), device=grid.device)
    terms = zip(axes, record["linear"], record["quadratic"], strict=True)
    for axis, (along, linear, quadratic) in enumerate(terms):
        values = linear * along + (quadratic + record["bowl"]) * along**2
        total += values.reshape([-1 if other == axis else 1 for other in range(3)])
    return total


def fit_shim(field: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"], grid: Grid) -> list[float]:
    """Coefficients of the harmonic polynomial that is nearest to the field (ppm) in the mask."""
    basis = torch.stack([term.expand(grid.shape)[mask] for term in _harmonics(grid)], dim=1)
    solution = torch.linalg.lstsq(basis.double(), field[mask].double()[:, None]).solution
    coefficients: list[float] = solution[:, 0].tolist()
    return coefficients


def shim_field(coefficients: Sequence[float], grid: Grid) -> Float[Tensor, "x y z"]:
    """Field in ppm of shim coils: constant, three gradients and five of second order."""
    total = torch.zeros(grid.shape, device=grid.device)
    for coefficient, term in zip(coefficients, _harmonics(grid), strict=True):
        total += coefficient * term
    return total


def _harmonics(grid: Grid) -> list[Tensor]:
    x = grid.axis(0).reshape(-1, 1, 1) / 100.0
    y = grid.axis(1).reshape(1, -1, 1) / 100.0
    z = grid.axis(2).reshape(1, 1, -1) / 100.0
    one = torch.ones(1, 1, 1, device=grid.device)
    return [one, x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2]


def noise_deviation(
    signal: Complex[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"], snr: float | None
) -> float:
    """Noise of real and imaginary part: the first echo's 99th percentile in the mask over SNR."""
    if snr is None:
        return 0.0
    magnitude = signal[0].abs()[mask].sort().values
    return float(magnitude[int(0.99 * (len(magnitude) - 1))]) / snr


def add_signal_noise(
    signal: Complex[Tensor, "echo x y z"], deviation: float, seed: int
) -> Complex[Tensor, "echo x y z"]:
    """Add complex white noise, equally strong in every echo."""
    shape = tuple(signal.shape)
    noise = torch.complex(white_noise(seed, shape), white_noise(seed + 1, shape))
    return signal + deviation * noise


def field_noise(
    magnitude: Float[Tensor, "echo x y z"], deviation: float, protocol: Protocol
) -> Float[Tensor, "x y z"]:
    """Give the standard deviation in ppm of a field fitted by a weighted line, to first order."""
    times = torch.tensor(list(protocol.echo_times), dtype=torch.float64)
    per_second = radians_per_ppm(1.0, protocol.b0)
    pieces = []
    for start in range(0, magnitude.shape[1], 16):  # several times as large in float64
        weight = magnitude[:, start : start + 16].double().square().clamp_min(1e-30)
        _, information = weighted_line(torch.zeros_like(weight), weight, times)
        found = deviation * information.rsqrt() / per_second
        pieces.append(found.clamp_max(1e3).float())
    return torch.cat(pieces)


def unwrapped_phase(
    signal: Complex[Tensor, "echo x y z"],
    offset: Float[Tensor, "x y z"],
    field: Float[Tensor, "x y z"],
    protocol: Protocol,
) -> Float[Tensor, "echo x y z"]:
    """Phase of a signal in rad with the multiples of 2 pi that bring it nearest to the model."""
    turn = 2 * torch.pi
    echoes = []
    for echo, time in zip(signal, protocol.echo_times, strict=True):
        model = offset + radians_per_ppm(time, protocol.b0) * field
        wrapped = echo.angle()
        echoes.append(wrapped + turn * torch.round((model - wrapped) / turn))
    return torch.stack(echoes)
