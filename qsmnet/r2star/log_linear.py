"""R2* by a weighted line through the logarithm."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.r2star.r2star import decay_in_mask, on_grid
from qsmnet.summary import Summary
from qsmnet.volumes import Scan


@dataclass(frozen=True)
class LogLinear:
    r"""Line through :math:`\ln m_e`, weighted by :math:`m_e^2`: one over the logarithm's variance.

    .. math:: \min_{a, R} \sum_e m_e^2 \left(\ln m_e - a + R\,TE_e\right)^2

    Without the weights late echoes, whose logarithm is hardly more than noise, count as much as the
    first. Late echoes at the floor of the magnitude's noise still pull R2* down: `Nlls` models it.

    Parameters
    ----------
    most
        Largest R2* in 1/s.

    Raises
    ------
    ValueError
        If ``most`` is not positive.
    """

    most: float = 1000.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; closed form",
        use="Two echoes and more, at any times, with a good signal-to-noise ratio.",
        reference="Bevington & Robinson 2003, Data reduction and error analysis, chapter 6",
    )

    def __post_init__(self) -> None:
        if not 0 < self.most < math.inf:
            raise ValueError(f"most must be positive, got {self.most}")

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Float[Tensor, "x y z"]:
        """R2* in 1/s, not negative, zero outside the mask.

        Raises
        ------
        InconsistentError
            If there is one echo.
        """
        magnitude, times = decay_in_mask(scan, mask, 2)
        return on_grid(log_linear(magnitude, times)[0], mask, self.most)


def log_linear(
    magnitude: Float[Tensor, "echo voxel"], times: Float[Tensor, "echo 1"]
) -> tuple[Float[Tensor, " voxel"], Float[Tensor, " voxel"]]:
    """R2* in 1/s, and the magnitude at TE = 0; not a number where there is no signal."""
    peak = magnitude.amax(0)
    relative = (magnitude / peak).clamp_min(1e-6)
    weight = relative.square() / relative.square().sum(0)
    logarithm = relative.log()
    centre, mean = (weight * times).sum(0), (weight * logarithm).sum(0)
    centred = times - centre
    rate = -(weight * centred * (logarithm - mean)).sum(0) / (weight * centred.square()).sum(0)
    return rate, peak * torch.exp(mean + rate * centre)
