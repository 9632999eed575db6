"""k-QSM, corrected: a residual network on whitened k-space."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from qsmnet.dipole import Kernel, Shape, dipole_spectrum, full_spectrum
from qsmnet.geometry import Geometry
from qsmnet.networks.residual import ResidualBlock
from qsmnet.summary import Summary

_AXES = (-3, -2, -1)


class KQSM(nn.Module):
    r"""Field to susceptibility in k-space, after k-QSM (He et al. 2022, 10.3389/fnins.2022.837721).

    Corrected where the published code errs or cannot generalise:

    - truncated division keeps the sign of D;
    - unit-norm FFT, and every sample is divided by a radial envelope :math:`E(|k|)` of the
      susceptibility's amplitude, estimated from the field where D is large, less the noise: inputs
      are of order one at every radius, grid and scale, where raw k-space spans four decades;
    - the noise is an input, as the Wiener factor :math:`w = D^2 E^2 / (D^2 E^2 + \sigma^2)`;
    - the spectrum is made Hermitian (the real part of the image is kept), no dropout;
    - the field outside the mask is unknown, not zero. The network works in stages; before each, the
      last estimate x (restricted to the mask) fills the field,
      :math:`b = W b_0 + (1 - W) F^{-1} D F x`, and enters the division,

      .. math:: s = (D \hat b + t^2 \hat x) / (D^2 + t^2 + \sigma^2 / E^2),

      which for x = 0 is a smooth truncated division. A stage adds a gain times s and a residual,
      both zero at the start of training, so that an untrained network is this iteration by itself.

    A convolution in k-space is a window in image space, so that the network sees the k-sample
    spacing 1/FOV in units of 1/(size of the object). `field_of_view` fixes that ratio for
    inference: the grid is cut to the mask's bounding box and zero-padded to ``field_of_view`` times
    it.

    Parameters
    ----------
    threshold
        t.
    stages
        Rounds of filling, division and network.
    width, blocks
        Channels, and residual blocks of a stage.
    field_of_view
        Grid over the extent of the mask at inference.
    kernel
        Of D. Train with the kernel that makes the data; a scan wants ``sampled``. The network takes
        D as it comes: the two differ little for an axial B0, much for a tilted one.
    """

    summary: ClassVar[Summary] = Summary(
        cost="22 complex FFTs of the cut grid, and the convolutions",
        use="Any voxel size and B0 direction that its card covers; k-space alone, so no edges.",
        reference="after He et al. 2022, 10.3389/fnins.2022.837721",
    )

    def __init__(
        self,
        threshold: float = 0.1,
        stages: int = 5,
        width: int = 32,
        blocks: int = 1,
        field_of_view: float = 1.25,
        kernel: Kernel = "prism",
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.field_of_view = field_of_view
        self.kernel: Kernel = kernel
        self.stages = nn.ModuleList([_Stage(width, blocks) for _ in range(stages)])

    def forward(
        self,
        field: Float[Tensor, "batch 1 x y z"],
        support: Float[Tensor, "batch 1 x y z"],
        noise: Float[Tensor, "batch 1 x y z"],
        mask: Float[Tensor, "batch 1 x y z"],
        geometry: Sequence[Geometry],
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Susceptibility in ppm; see `qsmnet.networks.contract.Network`."""
        known, inside = support[:, 0].float(), mask[:, 0].float()
        with torch.autocast(field.device.type, enabled=False):
            measured = field[:, 0].float() * known
            kernel = _kernels(measured, geometry, self.kernel)
            # white noise in part of the grid adds its variance's mean over the grid to each sample
            variance = (noise[:, 0].float() * known).square().mean(_AXES, keepdim=True)
            envelope = _envelopes(_transform(measured), kernel, variance, geometry)
        damping = variance / envelope.square()
        wiener = kernel.square() / (kernel.square() + damping + 1e-12)
        spectrum = torch.zeros_like(envelope, dtype=torch.complex64)
        chi = torch.zeros_like(measured)
        for stage in self.stages:
            with torch.autocast(field.device.type, enabled=False):
                filled = measured + (1 - known) * _image(kernel * spectrum)
                start = self._divided(_transform(filled), spectrum, kernel, damping) / envelope
            update = stage(start, spectrum / envelope, kernel, wiener)
            with torch.autocast(field.device.type, enabled=False):
                gain, residual = update[:, 0], torch.complex(update[:, 1], update[:, 2])
                # the real part of the image is the Hermitian part of the spectrum
                chi = _image(envelope * (start * (1.0 + gain) + residual))
                spectrum = _transform(chi * inside)
        return chi[:, None]

    def _divided(
        self, field: Tensor, spectrum: Tensor, kernel: Tensor, damping: Tensor
    ) -> Complex[Tensor, "batch x y z"]:
        square = self.threshold**2
        divided: Tensor = (kernel * field + square * spectrum) / (kernel**2 + square + damping)
        # k = 0 is not in the data; the centred grid holds it in the middle
        middle = [n // 2 for n in divided.shape[-3:]]
        divided[:, middle[0], middle[1], middle[2]] = 0.0
        return divided


class _Stage(nn.Module):
    """Whitened spectra, D and the Wiener factor to gain and residual."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv3d(6, width, 3, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(width) for _ in range(blocks)])
        self.head = nn.Conv3d(width, 3, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, start: Tensor, last: Tensor, kernel: Tensor, wiener: Tensor
    ) -> Float[Tensor, "batch 3 x y z"]:
        """Gain, and real and imaginary residual."""
        # scaled to about unit variance: |D| is at most 2/3, the Wiener factor lies in [0, 1]
        channels = (start.real, start.imag, last.real, last.imag, 3 * kernel, 2 * wiener - 1)
        state = self.stem(torch.stack(channels, dim=1))
        for block in self.blocks:
            state = block(state)
        update: Tensor = self.head(F.leaky_relu(state, 0.1)).float()
        return update


def _transform(volume: Tensor) -> Tensor:
    """Centred unit-norm spectrum."""
    spectrum = torch.fft.fftn(volume, dim=_AXES, norm="ortho")
    shifted: Tensor = torch.fft.fftshift(spectrum, dim=_AXES)
    return shifted


def _image(spectrum: Tensor) -> Tensor:
    """Real image of a centred unit-norm spectrum."""
    shifted = torch.fft.ifftshift(spectrum, dim=_AXES)
    image: Tensor = torch.fft.ifftn(shifted, dim=_AXES, norm="ortho").real
    return image


def _kernels(volume: Tensor, geometry: Sequence[Geometry], kernel: Kernel) -> Tensor:
    shape: Shape = (volume.shape[-3], volume.shape[-2], volume.shape[-1])
    halves = [dipole_spectrum(shape, each, kernel) for each in geometry]
    kernels = torch.stack([full_spectrum(half, shape[2]).to(volume) for half in halves])
    centred: Tensor = torch.fft.fftshift(kernels, dim=_AXES)
    return centred


def _envelopes(
    spectrum: Tensor, kernel: Tensor, variance: Tensor, geometry: Sequence[Geometry]
) -> Tensor:
    items = zip(spectrum, kernel, variance, geometry, strict=True)
    return torch.stack([radial_envelope(*item) for item in items])


def radial_envelope(
    spectrum: Complex[Tensor, "x y z"],
    kernel: Float[Tensor, "x y z"],
    variance: Float[Tensor, "1 1 1"],
    geometry: Geometry,
    bins: int = 24,
) -> Float[Tensor, "x y z"]:
    r"""Root mean square amplitude of the susceptibility's spectrum as a function of \|k\|.

    In each shell :math:`E^2 = (\sum |\hat b|^2 - \sigma^2)_+ / \sum D^2`: division by D never
    happens where D is small. Shells are equal in log radius between the finest sample spacing and
    the corner of k-space; the logarithm of E is interpolated between them.
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
    """Logarithm of the radius on the centred grid: 0 at the finest spacing, 1 at the corner."""
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
