"""k-QSM, corrected: a residual network on whitened k-space."""

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from qsmnet.dipole import Shape, sampled_kernel
from qsmnet.geometry import Geometry

_AXES = (-3, -2, -1)


class KQSM(nn.Module):
    r"""Field to susceptibility in k-space, after k-QSM (He et al. 2022, 10.3389/fnins.2022.837721).

    Corrected where the published code errs or cannot generalise:

    - truncated division keeps the sign of D;
    - unit-norm FFT, and every sample is divided by a radial envelope :math:`E(|k|)` of the susceptibility's
      amplitude, estimated from the field where D is large, less the noise: inputs are of order one at
      every radius, grid and scale, where raw k-space spans four decades;
    - the noise is an input, as the Wiener factor :math:`w = D^2 E^2 / (D^2 E^2 + \sigma^2)`;
    - the output is a correction: gain times the Wiener-weighted TKD plus a residual, both zero at the start
      of training, so that the network begins as regularised TKD;
    - the spectrum is made Hermitian (the real part of the image is kept), no dropout.

    A convolution in k-space is a window in image space, so that the network sees the k-sample spacing
    1/FOV in units of 1/(size of the object). `field_of_view` fixes that ratio for inference: the grid is cut to
    the mask's bounding box and zero-padded to ``field_of_view`` times it.

    Parameters
    ----------
    threshold
        TKD's threshold.
    width, blocks
        Channels and residual blocks.
    field_of_view
        Grid over the extent of the mask at inference.
    """

    def __init__(
        self,
        threshold: float = 0.1,
        width: int = 32,
        blocks: int = 6,
        field_of_view: float = 1.25,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.field_of_view = field_of_view
        self.stem = nn.Conv3d(4, width, 3, padding=1)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.head = nn.Conv3d(width, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None  # noqa: S101  # for the type checker
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        field: Float[Tensor, "batch 1 x y z"],
        support: Float[Tensor, "batch 1 x y z"],
        noise: Float[Tensor, "batch 1 x y z"],
        geometry: Sequence[Geometry],
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Susceptibility in ppm; see `qsmnet.networks.contract.Network`."""
        with torch.autocast(field.device.type, enabled=False):
            start, envelope, features = self._whiten(
                (field * support)[:, 0].float(), (noise * support)[:, 0].float(), geometry
            )
        state = self.stem(features)
        for block in self.blocks:
            state = block(state)
        update = self.head(F.leaky_relu(state, 0.1)).float()
        with torch.autocast(field.device.type, enabled=False):
            gain, residual = update[:, 0], torch.complex(update[:, 1], update[:, 2])
            spectrum = envelope * (start * (1.0 + gain) + residual)
            spectrum = torch.fft.ifftshift(spectrum, dim=_AXES)
            # the real part of the image is the Hermitian part of the spectrum
            return torch.fft.ifftn(spectrum, dim=_AXES, norm="ortho").real[:, None]

    def _whiten(
        self,
        field: Float[Tensor, "batch x y z"],
        noise: Float[Tensor, "batch x y z"],
        geometry: Sequence[Geometry],
    ) -> tuple[
        Complex[Tensor, "batch x y z"],
        Float[Tensor, "batch x y z"],
        Float[Tensor, "batch 4 x y z"],
    ]:
        """Whitened Wiener-weighted TKD, the envelope, and the network's input channels."""
        shape: Shape = (field.shape[-3], field.shape[-2], field.shape[-1])
        kernel = torch.stack([sampled_kernel(shape, each).to(field) for each in geometry])
        kernel = torch.fft.fftshift(kernel, dim=_AXES)
        spectrum = torch.fft.fftshift(torch.fft.fftn(field, dim=_AXES, norm="ortho"), dim=_AXES)
        # white noise of variance s^2 in part of the grid has mean square s^2 summed over the grid, per sample
        variance = noise.square().mean(_AXES, keepdim=True)
        envelope = torch.stack(
            [
                radial_envelope(s, k, v, g)
                for s, k, v, g in zip(spectrum, kernel, variance, geometry, strict=True)
            ]
        )
        signal = (kernel * envelope).square()
        wiener = signal / (signal + variance + 1e-20)
        sign = torch.where(kernel < 0, -1.0, 1.0)
        truncated = torch.where(kernel.abs() > self.threshold, kernel, sign * self.threshold)
        start = spectrum / truncated / envelope * wiener
        start[:, shape[0] // 2, shape[1] // 2, shape[2] // 2] = 0.0
        features = torch.stack([start.real, start.imag, 3.0 * kernel, 2.0 * wiener - 1.0], dim=1)
        return start, envelope, features


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        """Leaky-ReLU before each convolution, and a shortcut."""
        hidden = self.first(F.leaky_relu(state, 0.1))
        result: Tensor = state + self.second(F.leaky_relu(hidden, 0.1))
        return result


def radial_envelope(
    spectrum: Complex[Tensor, "x y z"],
    kernel: Float[Tensor, "x y z"],
    variance: Float[Tensor, "1 1 1"],
    geometry: Geometry,
    bins: int = 24,
) -> Float[Tensor, "x y z"]:
    r"""Root mean square amplitude of the susceptibility's spectrum as a function of \|k\|.

    In each shell :math:`E^2 = \sum (|\hat b|^2 - \sigma^2)_+ / \sum D^2`: division by D never happens where D is
    small. Shells are equal in log radius between the finest sample spacing and the corner of k-space; the
    logarithm of E is interpolated between them.
    """
    radius = _log_radius(tuple(kernel.shape), geometry).to(kernel)
    position = radius * (bins - 1)
    nearest = position.round().long().flatten()
    power = spectrum.abs().square().flatten()
    total = power.new_zeros(bins).index_add_(0, nearest, power)
    count = power.new_zeros(bins).index_add_(0, nearest, torch.ones_like(power))
    square = power.new_zeros(bins).index_add_(0, nearest, kernel.square().flatten())
    clean = total - count * variance.flatten()
    # a shell of noise alone keeps a twentieth of its power, so that its logarithm stays finite
    level = torch.maximum(clean, 0.05 * total) / square.clamp_min(1e-6 * count.clamp_min(1.0))
    log_level = _fill_empty(0.5 * torch.log(level.clamp_min(1e-30)), count > 0)
    low = position.floor().long().clamp(0, bins - 2)
    share = position - low
    return torch.exp(log_level[low] * (1 - share) + log_level[low + 1] * share)


def _log_radius(shape: tuple[int, ...], geometry: Geometry) -> Float[Tensor, "x y z"]:
    """Logarithm of the radius, 0 at the finest sample spacing and 1 at the corner, on the centred grid."""
    axes = [
        torch.fft.fftshift(torch.fft.fftfreq(n, d, dtype=torch.float64))
        for n, d in zip(shape, geometry.voxel_size, strict=True)
    ]
    kx, ky, kz = torch.meshgrid(*axes, indexing="ij")
    radius = (kx**2 + ky**2 + kz**2).sqrt()
    spacing = min(1.0 / (n * d) for n, d in zip(shape, geometry.voxel_size, strict=True))
    radius = radius.clamp_min(spacing)
    return torch.log(radius / spacing) / torch.log(radius.max() / spacing)


def _fill_empty(values: Tensor, filled: Tensor) -> Tensor:
    # fine bins near the centre may hold no sample: take the nearest one that does
    index = torch.arange(len(values), device=values.device)
    distance = (index[:, None] - index[None, :]).abs() + 1000 * (~filled)[None, :]
    return values[distance.argmin(1)]
