"""Noise of the complex signal, in the unit of the magnitude."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.background.noise import estimate_noise
from qsmnet.volumes import Scan

# median of chi^2 with n = 1, 2, ... degrees of freedom: of squared residuals over sigma^2; beyond
# the table Wilson and Hilferty's formula is good to 0.3 %
_MEDIAN_CHI2 = (0.45494, 1.38629, 2.36597, 3.35669)


def median_chi2(degrees: int) -> float:
    """Median of the chi-squared distribution."""
    if degrees <= len(_MEDIAN_CHI2):
        return _MEDIAN_CHI2[degrees - 1]
    return degrees * (1 - 2 / (9 * degrees)) ** 3


def noise_from_residuals(weighted_residual: Float[Tensor, "echo voxel"], degrees: int) -> float:
    r"""Estimate the noise of real and imaginary part from how far the echoes are from their line.

    .. math:: \sigma^2 = \mathrm{median}_r \sum_e (m_e r_e)^2 / \mathrm{median}(\chi^2_\nu)

    since the phase of magnitude m has the standard deviation sigma / m. The median leaves out
    voxels with wrapping errors or flow. Systematic deviations from a line count as noise.

    Parameters
    ----------
    weighted_residual
        Residual in rad times the magnitude, in the mask.
    degrees
        Echoes less fitted parameters.
    """
    squares = weighted_residual.square().sum(0)
    return float((squares.median() / median_chi2(degrees)).sqrt())


def noise_from_image(scan: Scan, mask: Bool[Tensor, "x y z"]) -> float:
    """Estimate the noise of real and imaginary part by a high-pass filter of the complex images.

    For one or two echoes, where a line leaves no residuals. Mean over echoes and parts.
    """
    signal = torch.polar(scan.magnitude, scan.wrapped_phase)
    parts = [part for echo in signal for part in (echo.real, echo.imag)]
    return sum(estimate_noise(part, mask) for part in parts) / len(parts)
