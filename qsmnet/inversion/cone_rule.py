r"""How evenly a map's residual spreads over k-space: what a rule for the regularisation looks at.

Near the cone D = 0 a field holds nothing of the object: what is there is error, of the noise and of
the model alike, and no map can explain it. Away from the cone a map that is regularised too little
explains the error, too, by structure that is not there; one that is regularised too much leaves
field of the object unexplained. With the residual :math:`r = b - D\chi - c`,

.. math:: \kappa = \frac{\sum_s n_s \langle |\hat r|^2 \rangle_s}
   {\sum_s n_s \langle |\hat r|^2 \rangle_{s,\,|D| < 0.04}}

over shells s of :math:`|k|` with :math:`n_s` samples is thus the share of the error that is left in
the residual: it grows from 0 to above 1 with the regularisation. It has no unit, needs no estimate
of the noise, and no knowledge of the method. What lies beyond `_CLIP` robust standard deviations is
cut to that before: a few voxels beside a bleed or of a wrong unwrapping, which no map explains,
would otherwise hold most of the power and say nothing about the rest.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qsmnet.dipole import Kernel
from qsmnet.geometry import Triple
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.volumes import LocalField

_AXES = (-3, -2, -1)
_PADDING = 1.25
_CONE = 0.04  # |D| below which the field is all error: 7 % of k-space
# of |k|, over the Nyquist frequency of the longest edge: below, the cone is thinner than the mask's
# blur; above, there is noise alone, and nothing at all where a scan was interpolated
_SHELLS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_CLIP = 2.5  # robust standard deviations of the residual
_SMOOTHING = 2.5  # longest edges; what a Gaussian of this width passes is not counted as residual


@dataclass(frozen=True, slots=True)
class Residual:
    """Measures the residuals of maps of one field.

    Parameters
    ----------
    data
        The field on its padded grid.
    known
        1 where the field is known, else 0.
    window
        What the residual is multiplied by: ``known``, or that with a soft rim.
    gaussian
        Spectrum of the smoothing.
    smoothed
        ``known``, smoothed.
    zone
        Of each sample of the half spectrum: twice its shell, plus 1 in the cone.
    copies
        How often a sample of the half spectrum stands in the full one.
    """

    data: DataTerm
    known: Float[Tensor, "x y z"]
    window: Float[Tensor, "x y z"]
    gaussian: Float[Tensor, "kx ky kz"]
    smoothed: Float[Tensor, "x y z"]
    zone: Int[Tensor, "kx ky kz"]
    copies: Float[Tensor, "kx ky kz"]

    @classmethod
    def of(cls, local: LocalField, kernel: Kernel = "sampled") -> "Residual":
        """Prepare for one volume."""
        # the noise map is left out: how large the error is shows in the residual itself
        data = DataTerm.of(replace(local, noise=None), kernel, _PADDING)
        known = (data.weight > 0).to(data.field.dtype)
        frequency = _frequency(data.shape, data.voxel_size, data.field)
        longest = max(data.voxel_size)
        gaussian = torch.exp(-2 * (torch.pi * _SMOOTHING * longest * frequency) ** 2)
        smoothed = _filtered(known, gaussian)
        # no source in the mask made what a background removal left at the rim or took from it
        rim = (2 * smoothed - 1).clamp_min(0) ** 2 if local.harmonic_removed else 1.0
        zone = _zones(frequency * (2 * longest), data.spectrum)
        copies = torch.full_like(frequency, 2.0)
        copies[..., 0] = 1.0
        if data.shape[2] % 2 == 0:
            copies[..., -1] = 1.0
        return cls(data, known, known * rim, gaussian, smoothed, zone, copies)

    def evenness(self, chi: Float[Tensor, "x y z"]) -> float:
        """Kappa of a map on the caller's grid, in ppm; NaN where nothing is left to explain."""
        model = _filtered(self.data.pad(chi), self.data.spectrum)
        residual = (self.data.field - model) * self.known
        background = _filtered(residual, self.gaussian) / self.smoothed.clamp_min(1e-3)
        clipped = self._clipped(residual - background)
        spectrum = torch.fft.rfftn(clipped * self.window, dim=_AXES)
        power = spectrum.abs().double().square() * self.copies
        count, total = (
            torch.zeros(2 * len(_SHELLS), dtype=torch.float64, device=power.device).index_add(
                0, self.zone.flatten(), values.flatten().double()
            )
            for values in (self.copies, power)
        )
        return _ratio(count.reshape(-1, 2)[1:], total.reshape(-1, 2)[1:])

    def _clipped(self, residual: Tensor) -> Tensor:
        bound = _CLIP * 1.4826 * float(residual[self.known > 0].abs().median())
        return residual.clamp(-bound, bound) if bound > 0 else residual


def _ratio(count: Tensor, total: Tensor) -> float:
    """Kappa of counts and sums of power, shell by shell, outside of the cone and in it."""
    there = count[:, 1] > 0
    count, total = count[there], total[there]
    in_cone = (count.sum(1) * total[:, 1] / count[:, 1]).sum()
    return float(total.sum() / in_cone)


def _zones(radius: Tensor, spectrum: Tensor) -> Tensor:
    edges = torch.tensor(_SHELLS, dtype=radius.dtype, device=radius.device)
    shell = torch.bucketize(radius, edges)
    shell[shell == len(_SHELLS)] = 0  # what is above the last edge is not looked at, either
    return 2 * shell + (spectrum.abs() < _CONE)


def _frequency(shape: tuple[int, int, int], voxel_size: Triple, like: Tensor) -> Tensor:
    """``|k|`` on the half spectrum in 1/mm."""
    x, y, z = (
        torch.fft.fftfreq(n, edge, dtype=like.dtype, device=like.device)
        for n, edge in zip(shape, voxel_size, strict=True)
    )
    z = z[: shape[2] // 2 + 1]
    square: Tensor = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2
    return square.sqrt()


def _filtered(volume: Tensor, spectrum: Tensor) -> Tensor:
    transformed = torch.fft.rfftn(volume, dim=_AXES).mul_(spectrum)
    result: Tensor = torch.fft.irfftn(transformed, s=volume.shape, dim=_AXES)
    return result
