r"""Where in k-space a map is wrong: relative error as a function of \|D(k)\|."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.volumes import Susceptibility

_LARGEST = 2 / 3


@dataclass(frozen=True)
class ErrorSpectrum:
    r"""Relative k-space error in bins of \|D\|.

    Parameters
    ----------
    edges
        Borders of the bins, from 0 (the cone where the field holds nothing) to 2/3.
    error
        One value a bin, NaN where no k sample falls into it. 1 is what an empty map scores.
    """

    edges: tuple[float, ...]
    error: tuple[float, ...]

    @property
    def centres(self) -> tuple[float, ...]:
        """Middles of the bins."""
        pairs = zip(self.edges[:-1], self.edges[1:], strict=True)
        return tuple((low + high) / 2 for low, high in pairs)


def error_spectrum(
    chi: Float[Tensor, "x y z"],
    truth: Float[Tensor, "x y z"],
    mask: Bool[Tensor, "x y z"],
    geometry: Geometry,
    bins: int = 20,
) -> ErrorSpectrum:
    r"""Relative error of ``chi`` over \|D(k)\| with the sampled kernel.

    .. math:: e_i = \sqrt{\sum_{|D(k)| \in i} |X(k) - T(k)|^2 / \sum_{|D(k)| \in i} |T(k)|^2}

    X and T are the spectra of the two maps in ppm, each zero outside ``mask`` and without its mean
    inside, on the next fast FFT grid. Values that are not finite count as 0.

    Raises
    ------
    ValueError
        If there is no bin.
    """
    if bins < 1:
        raise ValueError(f"a curve needs at least one bin, got {bins}")
    dipole = Dipole(tuple(chi.shape), geometry, padding=1.0)
    position = (dipole.spectrum.abs() * (bins / _LARGEST)).long().clamp(max=bins - 1)
    # the mean of a difference is the difference of the means
    error, norm = (
        _power(volume, mask, dipole, position, bins)
        for volume in (chi.nan_to_num(0) - truth, truth)
    )
    edges = torch.linspace(0, _LARGEST, bins + 1, dtype=torch.float64)
    return ErrorSpectrum(tuple(edges.tolist()), tuple((error / norm).sqrt().tolist()))


def _power(volume: Tensor, mask: Tensor, dipole: Dipole, position: Tensor, bins: int) -> Tensor:
    """Sum of ``|F volume|^2`` in each bin, ``volume`` taken without its mean in the mask."""
    centred = Susceptibility(volume, mask).referenced_to_mean().chi
    transformed = torch.fft.rfftn(centred, s=dipole.padded_shape, dim=(-3, -2, -1))
    power = transformed.abs().double().square()
    # planes of the half spectrum without a mirror image on it count once
    power[..., 1 : (dipole.padded_shape[2] + 1) // 2] *= 2
    return torch.zeros(bins, dtype=torch.float64).index_add(0, position.flatten(), power.flatten())
