r"""Several echoes to one field.

.. math:: \phi_e = \phi_0 + 2\pi\gamma B_0 TE_e\,\delta\,10^{-6} + 2\pi n_e

The offset phi0 (coils, radio-frequency field) varies in space. Where it is not known, the field is
the slope, only *differences* between echoes need unwrapping, and a multiple of 2 pi common to all
echoes is part of phi0. Where it was removed, every echo alone tells the field.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from qsmnet.phase.align import align_echoes, turns
from qsmnet.phase.noise import noise_from_image, noise_from_residuals
from qsmnet.phase.scale import wrap
from qsmnet.phase.unwrap import Unwrap
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Scan, TotalField

# phase of pure noise is uniform: its standard deviation cannot exceed pi / sqrt(3)
_NO_SIGNAL = math.pi / math.sqrt(3)
# below 1e-30 of anything there is nothing
_TINY = 1e-30


def unwrap_echoes(
    scan: Scan, mask: Bool[Tensor, "x y z"], unwrap: Unwrap
) -> Float[Tensor, "echo x y z"]:
    """Unwrapped phase in rad, the same multiple of 2 pi missing in all echoes of a voxel.

    An exact method unwraps as little as possible in space: the first echo where the phase offset
    was removed, else the first echo and the difference of the first two (short, free of phi0,
    fewest wraps). Every further echo follows voxel by voxel from the weighted line through the ones
    before it. That is more robust than unwrapping late echoes in space, where clusters of voxels
    around air and veins come out 2 pi off (the template unwrapping of ROMEO: Dymerska et al. 2021,
    10.1002/mrm.28563). An approximate method unwraps every echo in space, and echoes are aligned as
    wholes.
    """
    origin, times = scan.offset_removed, scan.echo_times
    if len(times) == 1:
        return unwrap(scan, mask)
    if not unwrap.exact:
        unwrapped = unwrap(scan, mask)
        return align_echoes(unwrapped, times, mask, voxelwise=False, through_origin=origin)
    weight = line_weight(scan.magnitude, 2.0)
    if origin:
        first = join_parts(unwrap(scan, mask, count=1), mask)
        echoes = torch.cat([first, scan.wrapped_phase[1:]])
        return align_echoes(echoes, times, mask, weight, through_origin=True)
    difference, first = unwrap(difference_and_first(scan), mask)
    difference = join_parts(difference[None], mask)[0]
    echoes = torch.cat([torch.stack([first, first + difference]), scan.wrapped_phase[2:]])
    return align_echoes(echoes, times, mask, weight)


def difference_and_first(scan: Scan) -> Scan:
    """Difference of the first two echoes as if it were an echo, and the first."""
    phase, magnitude = scan.wrapped_phase, scan.magnitude
    return replace(
        scan,
        wrapped_phase=torch.stack([wrap(phase[1] - phase[0]), phase[0]]),
        magnitude=torch.stack([(magnitude[0] * magnitude[1]).sqrt(), magnitude[0]]),
        echo_times=(scan.echo_times[1] - scan.echo_times[0], scan.echo_times[0]),
    )


def join_parts(
    unwrapped: Float[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"]
) -> Float[Tensor, "echo x y z"]:
    """Parts of the mask that do not touch get the multiple of 2 pi nearest to the largest part."""
    labels, count = ndimage.label(mask.numpy())
    if count < 2:
        return unwrapped
    parts = torch.from_numpy(labels).long()
    largest = int(parts[mask].bincount().argmax())

    def joined(volume: Tensor) -> Tensor:
        medians = ndimage.median(volume.numpy(), labels, range(count + 1))
        ahead = torch.from_numpy(np.asarray(medians, dtype=np.float32))
        return torch.where(mask, volume - turns(ahead - ahead[largest])[parts], 0.0)

    return torch.stack([joined(volume) for volume in unwrapped])


def line_weight(
    magnitude: Float[Tensor, " echo *voxel"], dephasing: float
) -> Float[Tensor, " echo *voxel"]:
    r"""Weight of each echo's phase, :math:`m_e^2 (m_e / \max m)^{dephasing}`."""
    weight = magnitude.square()
    if dephasing == 0:
        return weight
    return weight * (magnitude / magnitude.amax(0).clamp_min(_TINY)) ** dephasing


def fit_field(
    scan: Scan,
    unwrapped: Float[Tensor, "echo x y z"],
    mask: Bool[Tensor, "x y z"],
    dephasing: float = 0.0,
) -> TotalField:
    r"""Weighted line through the phase of every voxel, and the noise of its slope.

    .. math:: 2\pi\gamma B_0 10^{-6}\, \hat\delta = \sum_e a_e \phi_e, \qquad
       a_e = \frac{w_e (TE_e - \overline{TE})}{\sum_e w_e (TE_e - \overline{TE})^2}

    with :math:`\overline{TE}` the weighted mean and the intercept phi0. Where the offset was
    removed, or of one echo, the line goes through the origin: :math:`\overline{TE} = 0`. The
    variance of the slope is :math:`\sum_e a_e^2 \sigma^2 / m_e^2`; sigma, the noise of real and
    imaginary part, comes from the residuals of the line (three echoes and more) or from the image.

    Parameters
    ----------
    dephasing
        Exponent of `line_weight`; 0 is the least noise.

    Returns
    -------
    TotalField
        As `total_field` makes it.
    """
    phase, magnitude = unwrapped[:, mask].double(), scan.magnitude[:, mask].double()
    share = slope_shares(scan, line_weight(magnitude, dephasing))
    return total_field(scan, unwrapped, mask, (share * phase).sum(0), share)


def total_field(
    scan: Scan,
    unwrapped: Float[Tensor, "echo x y z"],
    mask: Bool[Tensor, "x y z"],
    slope: Float[Tensor, " voxel"],
    share: Float[Tensor, "echo voxel"],
) -> TotalField:
    """Field of fitted slopes.

    Parameters
    ----------
    slope
        In rad/s, of the voxels of the mask.
    share
        Change of the slope with the phase of each echo, in 1/s.

    Returns
    -------
    TotalField
        ``field`` and ``noise`` in ppm, zero outside the mask; ``magnitude`` the root sum of
        squares; ``radians_per_ppm`` at the last echo.
    """
    sigma = signal_noise(scan, unwrapped, mask)
    phase_sd = (sigma / scan.magnitude[:, mask].double().clamp_min(_TINY)).clamp(max=_NO_SIGNAL)
    per_second = radians_per_ppm(1.0, scan.b0)
    field, noise = (torch.zeros(mask.shape) for _ in range(2))
    field[mask] = (slope / per_second).float()
    noise[mask] = ((share * phase_sd).square().sum(0).sqrt() / per_second).float()
    return TotalField(
        field=field,
        mask=mask,
        geometry=scan.geometry,
        noise=noise,
        magnitude=combined_magnitude(scan),
        radians_per_ppm=radians_per_ppm(scan.echo_times[-1], scan.b0),
    )


def slope_shares(scan: Scan, weight: Float[Tensor, "echo voxel"]) -> Float[Tensor, "echo voxel"]:
    """Change of the slope with the phase of each echo, in 1/s."""
    times = torch.tensor(scan.echo_times, dtype=weight.dtype).view(-1, 1)
    if len(times) == 1:
        return (1 / times).expand_as(weight)
    # where no echo has any signal, all count alike
    weight = torch.where(weight.amax(0) > _TINY, weight, 1.0)
    centred = times
    if not scan.offset_removed:
        centred = times - (weight * times).sum(0) / weight.sum(0)
    leaning = weight * centred
    return leaning / (leaning * centred).sum(0).clamp_min(_TINY)


def signal_noise(
    scan: Scan, unwrapped: Float[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"]
) -> float:
    """Noise of real and imaginary part in the magnitude's unit: from residuals or the image."""
    if len(scan.echo_times) < 3:
        return noise_from_image(scan, mask)
    times = torch.tensor(scan.echo_times, dtype=torch.float64).view(-1, 1)
    phase, magnitude = unwrapped[:, mask].double(), scan.magnitude[:, mask].double()
    # the intercept stays free: what is left of an offset is not noise
    weight = magnitude.square()
    free = replace(scan, offset_removed=False)
    line = (slope_shares(free, weight) * phase).sum(0) * times
    offset = ((phase - line) * weight).sum(0) / weight.sum(0).clamp_min(_TINY)
    return noise_from_residuals((phase - line - offset) * magnitude, len(times) - 2)


def combined_magnitude(scan: Scan) -> Float[Tensor, "x y z"]:
    """Root sum of squares over the echoes."""
    return scan.magnitude.square().sum(0).sqrt()


def weighted_line(
    phase: Float[Tensor, "echo x y z"], weight: Float[Tensor, "echo x y z"], echoes: Tensor
) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z"]]:
    """Slope of the line through the echoes (times in s), and one over its variance.

    ``weight`` is one over the variance of the phase; one echo is a line through the origin.
    """
    times = echoes.view(-1, 1, 1, 1)
    total = weight.sum(0).clamp_min(_TINY)
    centre = (weight * times).sum(0) / total if len(echoes) > 1 else 0.0
    centred = times - centre
    information = (weight * centred**2).sum(0)
    slope = (weight * centred * phase).sum(0) / information.clamp_min(_TINY)
    return slope, information.clamp_min(_TINY)
