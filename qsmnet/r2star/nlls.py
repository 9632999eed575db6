"""R2* by nonlinear least squares."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.phase.noise import noise_from_image
from qsmnet.r2star.log_linear import log_linear
from qsmnet.r2star.r2star import decay_in_mask, on_grid
from qsmnet.summary import Summary
from qsmnet.volumes import Scan

# how the damping changes after a step that helped, and after one that did not
_EASE, _STIFFEN = 0.2, 5.0
# noise over signal that makes no difference
_NO_FLOOR = 1e-6


@dataclass(frozen=True)
class Nlls:
    r"""Levenberg and Marquardt's method, every voxel at once.

    .. math:: \min_{A, R} \sum_e \left(m_e - \mu(A e^{-R\,TE_e})\right)^2, \qquad
       \mu(s) = \sigma \sqrt{\tfrac{\pi}{2}}\; e^{-x/2}
       \left[(1 + x) I_0(\tfrac{x}{2}) + x I_1(\tfrac{x}{2})\right], \quad
       x = \frac{s^2}{2\sigma^2}

    mu is the mean of a Rician magnitude (Gudbjartsson & Patz 1995, 10.1002/mrm.1910340618); sigma
    is the noise of real and imaginary part. Without the floor, mu(s) = s: then the magnitude of
    noise looks like signal that does not decay, and R2* above about 100 1/s comes out too low. It
    starts from `LogLinear`.

    Parameters
    ----------
    floor
        Whether the noise floor is modelled.
    noise
        sigma in the magnitude's unit; null estimates it from the images in the mask.
    iterations
        Steps of every voxel.
    most
        Largest R2* in 1/s.

    Raises
    ------
    ValueError
        If ``iterations`` is below 1, ``most`` not positive or ``noise`` negative.
    """

    floor: bool = True
    noise: float | None = None
    iterations: int = 12
    most: float = 1000.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; 12 steps a voxel",
        use="The default: unbiased where R2* is high or the signal is near its noise.",
        reference="Gudbjartsson & Patz 1995, 10.1002/mrm.1910340618",
    )

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 < self.most < math.inf:
            raise ValueError(f"most must be positive, got {self.most}")
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be 0 or more, got {self.noise}")

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Float[Tensor, "x y z"]:
        """R2* in 1/s, not negative, zero outside the mask.

        Raises
        ------
        InconsistentError
            If there is one echo.
        """
        magnitude, times = decay_in_mask(scan, mask, 2)
        sigma = 0.0
        if self.floor:
            sigma = noise_from_image(scan, mask) if self.noise is None else self.noise
        scale = magnitude.amax(0).clamp_min(1e-30)
        relative, floor = magnitude / scale, (sigma / scale).clamp_min(_NO_FLOOR)
        rate, size = log_linear(relative, times)
        rate, size = rate.nan_to_num(nan=0.0).clamp(0.0, self.most), size.nan_to_num(nan=1.0)
        rate = _levenberg_marquardt(relative, times, floor, rate, size, self.iterations, self.most)
        return on_grid(torch.where(magnitude.amax(0) > 0, rate, 0.0), mask, self.most)


def _levenberg_marquardt(
    magnitude: Tensor,
    times: Tensor,
    floor: Tensor,
    rate: Tensor,
    size: Tensor,
    iterations: int,
    most: float,
) -> Float[Tensor, " voxel"]:
    damping = torch.full_like(rate, 1e-3)
    decay = torch.exp(-rate * times)
    model, slope = _rician_mean(size * decay, floor)
    for _ in range(iterations):
        left = magnitude - model
        step_size, step_rate = _solve(slope * decay, -times * slope * size * decay, left, damping)
        new_size = (size + step_size).clamp_min(1e-6)
        new_rate = (rate + step_rate).clamp(0.0, most)
        new_decay = torch.exp(-new_rate * times)
        new_model, new_slope = _rician_mean(new_size * new_decay, floor)
        better = (magnitude - new_model).square().sum(0) <= left.square().sum(0)
        rate, size = torch.where(better, new_rate, rate), torch.where(better, new_size, size)
        decay, model = torch.where(better, new_decay, decay), torch.where(better, new_model, model)
        slope = torch.where(better, new_slope, slope)
        damping = damping * torch.where(better, _EASE, _STIFFEN)
    return rate


def _rician_mean(signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean magnitude of a signal with complex noise, and its derivative by the signal."""
    x = (signal / sigma).square() / 2
    zeroth, first = torch.special.i0e(x / 2), torch.special.i1e(x / 2)
    scale = math.sqrt(math.pi / 2)
    mean = scale * sigma * ((1 + x) * zeroth + x * first)
    return mean, scale * (zeroth + first) / 2 * signal / sigma


def _solve(
    by_size: Tensor, by_rate: Tensor, residual: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """Damped normal equations of two unknowns."""
    a, b = by_size.square().sum(0) * (1 + damping), by_rate.square().sum(0) * (1 + damping)
    c = (by_size * by_rate).sum(0)
    right_a, right_b = (by_size * residual).sum(0), (by_rate * residual).sum(0)
    determinant = (a * b - c * c).clamp_min(1e-30)
    return (b * right_a - c * right_b) / determinant, (a * right_b - c * right_a) / determinant
