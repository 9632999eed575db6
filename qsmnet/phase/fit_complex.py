"""The field whose complex signal is nearest to the echoes."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.phase.echoes import line_weight, slope_shares, total_field
from qsmnet.summary import Summary
from qsmnet.volumes import Scan, TotalField


@dataclass(frozen=True)
class ComplexFit:
    r"""Nonlinear fit of the complex signal (Liu et al. 2013, 10.1002/mrm.24272).

    .. math:: \min_{f, p} \sum_e w_e \left|e^{i\phi_e} - e^{i(2\pi f\,TE_e + p)}\right|^2, \qquad
       w_e = m_e^2 \left(\frac{m_e}{\max_e m_e}\right)^d

    with p = 0 where the phase offset was removed (or of one echo). It starts from the line through
    the unwrapped phase; every step solves the weighted line through the *sines* of the residuals,

    .. math:: \min_{\Delta f, \Delta p}
       \sum_e w_e \left(\sin r_e - 2\pi\,\Delta f\,TE_e - \Delta p\right)^2

    which is Gauss and Newton's step with the cosine of the residual replaced by one: a majoriser,
    so that no step makes the misfit larger, and none needs a line search. The misfit of one echo is
    bounded: an echo that was unwrapped wrongly pulls less than it does on a line. The noise is that
    of the line.

    Parameters
    ----------
    dephasing
        d, no unit: see `qsmnet.phase.fit_line.LineFit`.
    iterations
        Steps at most.
    tolerance
        Largest change of the phase at the last echo in rad at which the steps end.

    Raises
    ------
    ValueError
        If ``dephasing`` is negative, ``iterations`` below 1 or ``tolerance`` not positive.
    """

    dephasing: float = 2.0
    iterations: int = 20
    tolerance: float = 1e-3

    summary: ClassVar[Summary] = Summary(
        cost="no FFT",
        use="Where single echoes may be unwrapped wrongly, or the signal is as low as its noise.",
        reference="Liu et al. 2013, 10.1002/mrm.24272",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.dephasing < math.inf:
            raise ValueError(f"dephasing must be 0 or more, got {self.dephasing}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")

    def __call__(
        self, scan: Scan, unwrapped: Float[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"], /
    ) -> TotalField:
        """Field and the standard deviation of its noise in ppm, zero outside the mask."""
        phase, magnitude = unwrapped[:, mask].double(), scan.magnitude[:, mask].double()
        weight = line_weight(magnitude, self.dephasing)
        share = slope_shares(scan, weight)
        times = torch.tensor(scan.echo_times, dtype=phase.dtype).view(-1, 1)
        free = not scan.offset_removed and len(times) > 1
        total = weight.sum(0).clamp_min(1e-30)
        slope, offset = _line(phase, weight / total, share, times, free)
        for _ in range(self.iterations):
            sines = (phase - slope * times - offset).sin()
            step, shift = _line(sines, weight / total, share, times, free)
            slope, offset = slope + step, offset + shift
            if float(step.abs().max()) * scan.echo_times[-1] < self.tolerance:
                break
        return total_field(scan, unwrapped, mask, slope, share)


def _line(
    values: Tensor, weight: Tensor, share: Tensor, times: Tensor, free: bool
) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the weighted line; the weights' sum is one."""
    slope = (share * values).sum(0)
    offset = ((values - slope * times) * weight).sum(0) if free else torch.zeros_like(slope)
    return slope, offset
