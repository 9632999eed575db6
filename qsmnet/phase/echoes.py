r"""Several echoes to one field.

.. math:: \phi_e = \phi_0 + 2\pi\gamma B_0 TE_e\,\delta\,10^{-6} + 2\pi n_e

The offset phi0 (coils, radio-frequency field) varies in space and is not known. The field is the
slope, so that only *differences* between echoes need unwrapping, and a multiple of 2 pi common to
all echoes is part of phi0.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from qsmnet.phase.noise import noise_from_image, noise_from_residuals
from qsmnet.phase.scale import wrap
from qsmnet.phase.unwrap import Unwrap
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import Scan, TotalField

# phase of pure noise is uniform: its standard deviation cannot exceed pi / sqrt(3)
_NO_SIGNAL = math.pi / math.sqrt(3)
# frequency offsets, in turns between the first two echoes, that uneven echo spacing can tell apart
_TURNS = (0, 1, -1, 2, -2)


def unwrap_echoes(
    scan: Scan, mask: Bool[Tensor, "x y z"], unwrap: Unwrap
) -> Float[Tensor, "echo x y z"]:
    """Unwrapped phase in rad, the same multiple of 2 pi missing in all echoes of a voxel.

    An exact method unwraps in space the first echo and the difference of the first two (short, free
    of phi0, fewest wraps); every further echo follows voxel by voxel from the line through the ones
    before it. That is more robust than unwrapping late echoes in space, where clusters of voxels
    around air and veins come out 2 pi off (the template unwrapping of ROMEO: Dymerska et al. 2021,
    10.1002/mrm.28563). An approximate method unwraps every echo in space, and echoes are aligned as
    wholes.
    """
    if len(scan.echo_times) == 1:
        return unwrap(scan.wrapped_phase, mask, scan.geometry)
    if not unwrap.exact:
        return align_echoes(
            unwrap(scan.wrapped_phase, mask, scan.geometry), scan.echo_times, mask, voxelwise=False
        )
    first_two = torch.stack(
        [scan.wrapped_phase[0], wrap(scan.wrapped_phase[1] - scan.wrapped_phase[0])]
    )
    first, difference = unwrap(first_two, mask, scan.geometry)
    difference = _join_parts(difference, mask)
    echoes = torch.cat([torch.stack([first, first + difference]), scan.wrapped_phase[2:]])
    return align_echoes(echoes, scan.echo_times, mask)


def align_echoes(
    unwrapped: Float[Tensor, "echo x y z"],
    echo_times: tuple[float, ...],
    mask: Bool[Tensor, "x y z"],
    voxelwise: bool = True,
) -> Float[Tensor, "echo x y z"]:
    """Add multiples of 2 pi to the echoes after the first, so that they lie on a line in time.

    The second echo moves as a whole, so that its median difference to the first lies in [-pi, pi]:
    nothing in the data says which turn is right, and a wrong one only adds a constant to the field.
    (With uneven spacing it can be told, and is.) Each later echo moves to the line through the ones
    before it.

    Parameters
    ----------
    unwrapped
        In rad. The first two echoes unwrapped in space; later ones may be wrapped if ``voxelwise``.
    voxelwise
        Move voxels one by one; False moves each echo by its median, for phase that was not
        unwrapped by multiples of 2 pi.
    """
    centred = unwrapped.clone()
    if len(echo_times) > 1:
        centred[1] -= _turns((unwrapped[1] - unwrapped[0])[mask].median())
    candidates = [
        _follow(centred, turns, echo_times, mask, voxelwise) for turns in _candidates(echo_times)
    ]
    misfits = [misfit for _, misfit in candidates]
    # the turn nearest to zero unless another one fits clearly better
    best = 0 if misfits[0] <= 2 * min(misfits) else misfits.index(min(misfits))
    return torch.where(mask, candidates[best][0], 0.0)


def fit_field(
    scan: Scan,
    unwrapped: Float[Tensor, "echo x y z"],
    mask: Bool[Tensor, "x y z"],
) -> TotalField:
    r"""Noise-weighted line through the phase of every voxel, and the noise of its slope.

    .. math:: 2\pi\gamma B_0 10^{-6}\, \hat\delta =
       \frac{\sum_e w_e (TE_e - \overline{TE}) \phi_e}{\sum_e w_e (TE_e - \overline{TE})^2},
       \qquad w_e = m_e^2 / \sigma^2

    with :math:`\overline{TE}` the weighted mean; the intercept is phi0. The variance of the slope
    is one over the denominator. One echo has no intercept: delta = phi / TE, and phi0 stays in it.
    sigma, the noise of real and imaginary part, comes from the residuals of the line (three echoes
    and more) or from the image.

    Returns
    -------
    TotalField
        ``field`` and ``noise`` in ppm, zero outside the mask; ``magnitude`` the root sum of
        squares; ``radians_per_ppm`` at the last echo.
    """
    echoes = torch.tensor(scan.echo_times, dtype=torch.float64)
    slope, _ = weighted_line(unwrapped.double(), scan.magnitude.double().square(), echoes)
    sigma = signal_noise(scan, unwrapped, mask)
    phase_sd = (sigma / scan.magnitude.double().clamp_min(1e-30)).clamp(max=_NO_SIGNAL)
    _, information = weighted_line(unwrapped.double(), phase_sd.clamp_min(1e-12) ** -2, echoes)
    per_second = radians_per_ppm(1.0, scan.b0)
    return TotalField(
        field=torch.where(mask, slope / per_second, 0.0).float(),
        mask=mask,
        geometry=scan.geometry,
        noise=torch.where(mask, information.rsqrt() / per_second, 0.0).float(),
        magnitude=combined_magnitude(scan),
        radians_per_ppm=radians_per_ppm(scan.echo_times[-1], scan.b0),
    )


def signal_noise(
    scan: Scan, unwrapped: Float[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"]
) -> float:
    """Noise of real and imaginary part in the magnitude's unit: from residuals or the image."""
    if len(scan.echo_times) < 3:
        return noise_from_image(scan, mask)
    echoes = torch.tensor(scan.echo_times, dtype=torch.float64)
    phase, weight = unwrapped.double(), scan.magnitude.double().square()
    slope, _ = weighted_line(phase, weight, echoes)
    line = slope * echoes.view(-1, 1, 1, 1)
    offset = ((phase - line) * weight).sum(0) / weight.sum(0).clamp_min(1e-30)
    residual = (phase - line - offset) * scan.magnitude
    return noise_from_residuals(residual, mask, len(scan.echo_times) - 2)


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
    total = weight.sum(0).clamp_min(1e-30)
    centre = (weight * times).sum(0) / total if len(echoes) > 1 else 0.0
    centred = times - centre
    information = (weight * centred**2).sum(0)
    slope = (weight * centred * phase).sum(0) / information.clamp_min(1e-30)
    return slope, information.clamp_min(1e-30)


def _candidates(echo_times: tuple[float, ...]) -> tuple[int, ...]:
    if len(echo_times) < 3:
        return (0,)
    first_gap = echo_times[1] - echo_times[0]
    gaps = [(later - echo_times[0]) / first_gap for later in echo_times[2:]]
    # whole multiples of the first gap turn along with it: every candidate fits equally well
    even = all(abs(gap - round(gap)) < 0.05 for gap in gaps)
    return (0,) if even else _TURNS


def _follow(
    unwrapped: Tensor, turns: int, echo_times: tuple[float, ...], mask: Tensor, voxelwise: bool
) -> tuple[Tensor, float]:
    aligned, misfit = unwrapped.clone(), 0.0
    if len(echo_times) > 1:
        aligned[1] += 2 * math.pi * turns
    times = torch.tensor(echo_times, dtype=unwrapped.dtype)
    for echo in range(2, len(echo_times)):
        predicted = _extrapolate(aligned[:echo], times[:echo], times[echo])
        ahead = predicted - aligned[echo]
        aligned[echo] += _turns(ahead if voxelwise else ahead[mask].median())
        misfit += float((predicted - aligned[echo])[mask].abs().median())
    return aligned, misfit


def _extrapolate(echoes: Tensor, times: Tensor, at: Tensor) -> Tensor:
    centred = times - times.mean()
    coefficients = 1.0 / len(times) + centred * (at - times.mean()) / centred.square().sum()
    return torch.einsum("e,exyz->xyz", coefficients, echoes)


def _turns(phase: Tensor) -> Tensor:
    return 2 * math.pi * torch.round(phase / (2 * math.pi))


def _join_parts(difference: Tensor, mask: Tensor) -> Tensor:
    """Parts of the mask that do not touch get the multiple of 2 pi nearest to the largest part."""
    labels, count = ndimage.label(mask.numpy())
    if count < 2:
        return difference
    parts = torch.from_numpy(labels).long()
    largest = int(parts[mask].bincount().argmax())
    medians = torch.from_numpy(
        np.asarray(ndimage.median(difference.numpy(), labels, range(count + 1)), dtype=np.float32)
    )
    return difference - _turns(medians - medians[largest])[parts]
