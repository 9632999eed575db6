"""R2* by auto-regression on linear operations."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.r2star.r2star import decay_in_mask, on_grid
from qsmnet.summary import Summary
from qsmnet.volumes import Scan

# how far, relative to a gap, the echo times may be from even
_EVEN = 0.01


@dataclass(frozen=True)
class Arlo:
    r"""ARLO (Pei et al. 2015, 10.1002/mrm.25137): a closed form without logarithms.

    The integral of a decay over two gaps equals its difference over R2*. With Simpson's rule,

    .. math:: R_2^* = \frac{3}{\Delta}\,\frac{\sum_i \delta_i a_i}{\sum_i s_i a_i}, \qquad
       \delta_i = m_i - m_{i+2},\ s_i = m_i + 4 m_{i+1} + m_{i+2},\ a_i = m_i + 2 m_{i+1}

    Simpson's rule overestimates the integral of an exponential: the ratio is
    :math:`3 \sinh x / (2 + \cosh x)` for :math:`x = R_2^* \Delta`. With ``exact`` that is solved
    for x, so that an exponential without noise gives its rate whatever the gap; without, the result
    is the paper's, 0.5 % low at x = 1. That is how it differs from the paper.

    Parameters
    ----------
    exact
        Whether the error of Simpson's rule is undone.
    most
        Largest R2* in 1/s.

    Raises
    ------
    ValueError
        If ``most`` is not positive.
    """

    exact: bool = True
    most: float = 1000.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; closed form",
        use="Three echoes and more, evenly spaced, with a good signal-to-noise ratio.",
        reference="Pei et al. 2015, 10.1002/mrm.25137",
    )

    def __post_init__(self) -> None:
        if not 0 < self.most < math.inf:
            raise ValueError(f"most must be positive, got {self.most}")

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Float[Tensor, "x y z"]:
        """R2* in 1/s, not negative, zero outside the mask.

        Raises
        ------
        InconsistentError
            If there are fewer than three echoes, or they are not evenly spaced.
        """
        magnitude, times = decay_in_mask(scan, mask, 3)
        gaps = times.diff(dim=0)
        gap = float(gaps.mean())
        if float((gaps - gap).abs().max()) > _EVEN * gap:
            raise InconsistentError(
                "echo times",
                f"{', '.join(f'{time:g}' for time in scan.echo_times)} s are not evenly spaced",
                "use log_linear or nlls",
            )
        first, middle, last = magnitude[:-2], magnitude[1:-1], magnitude[2:]
        weight = first + 2 * middle
        change = ((first - last) * weight).sum(0)
        area = ((first + 4 * middle + last) * weight).sum(0)
        decay = (3 * change / area).clamp(0.0, 3.0)
        return on_grid((_undo_simpson(decay) if self.exact else decay) / gap, mask, self.most)


def _undo_simpson(decay: Float[Tensor, " voxel"]) -> Float[Tensor, " voxel"]:
    r"""Solve :math:`3 \sinh x / (2 + \cosh x) = d` for x: a quadratic in :math:`e^{-x}`."""
    # 3 (1 - q^2) = d (1 + 4 q + q^2) with q = e^{-x}
    root = (3 * decay.square() + 9).sqrt()
    ratio = (root - 2 * decay) / (3 + decay)
    return -ratio.clamp_min(torch.finfo(decay.dtype).tiny).log()
