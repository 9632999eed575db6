"""k-QSM as published (He et al. 2022)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from qsmnet.dipole import Shape, sampled_kernel
from qsmnet.geometry import Geometry
from qsmnet.summary import Summary

_AXES = (-3, -2, -1)
_SLOPE = 0.1


class KQSMHe2022(nn.Module):
    """Residual network on k-space (He et al. 2022, 10.3389/fnins.2022.837721), 502,594 parameters.

    Three channels on the centred full k-space, ``Re TKD, Im TKD, D``; a convolution to 32 channels,
    eight residual blocks with dropout, two convolutions and one to ``Re chi, Im chi``. A leaky ReLU
    of slope 0.1 follows every convolution but the last, that of a block's second one after the
    shortcut is added. Weights start as PyTorch's convolutions do.

    Wiring and input are those of the authors' code (github.com/TyrionJ/k-QSM): raw unnormalised
    FFT, no input scaling, the whole spectrum is replaced, the image is ``|ifft| sign(Re ifft)``,
    truncation writes +threshold even where D is negative, and D(0) is 1/3. So it is not
    homogeneous, other than the project's own networks. Two things differ: D knows the voxel size,
    where the authors' scans were all of 1 mm, and is even at the Nyquist frequencies.

    Parameters
    ----------
    threshold
        TKD's threshold (0.1; the paper also has 0.2).
    width, blocks
        32 and 8 in the paper.
    dropout
        Of whole feature maps, in each block.
    """

    takes_noise: ClassVar[bool] = False
    summary: ClassVar[Summary] = Summary(
        cost="1 complex FFT pair, and the convolutions",
        use="To compare with the paper; train it first.",
        reference="He et al. 2022, 10.3389/fnins.2022.837721",
    )

    def __init__(
        self, threshold: float = 0.1, width: int = 32, blocks: int = 8, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.stem = nn.Conv3d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList([_DropoutBlock(width, dropout) for _ in range(blocks)])
        self.tail = nn.Sequential(
            nn.Conv3d(width, width, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv3d(width, width, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
        )
        self.head = nn.Conv3d(width, 2, 3, padding=1)

    def forward(
        self,
        field: Float[Tensor, "batch 1 x y z"],
        support: Float[Tensor, "batch 1 x y z"],
        noise: Float[Tensor, "batch 1 x y z"],  # noqa: ARG002  # the published network knows no noise
        mask: Float[Tensor, "batch 1 x y z"],  # noqa: ARG002  # nor a mask of its own
        geometry: Sequence[Geometry],
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Susceptibility in ppm; see `qsmnet.networks.contract.Network`."""
        spectrum = self.spectrum(field * support, geometry)
        with torch.autocast(field.device.type, enabled=False):
            image = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=_AXES), dim=_AXES)
            chi: Tensor = (image.abs() * image.real.sign())[:, None]
            return chi

    def spectrum(
        self, field: Float[Tensor, "batch 1 x y z"], geometry: Sequence[Geometry]
    ) -> Complex[Tensor, "batch x y z"]:
        """Predicted centred k-space, unnormalised."""
        state = F.leaky_relu(self.stem(self.inputs(field, geometry)), _SLOPE)
        for block in self.blocks:
            state = block(state)
        predicted = self.head(self.tail(state)).float()
        return torch.complex(predicted[:, 0], predicted[:, 1])

    def inputs(
        self, field: Float[Tensor, "batch 1 x y z"], geometry: Sequence[Geometry]
    ) -> Float[Tensor, "batch 3 x y z"]:
        """``Re TKD, Im TKD, D`` on the centred grid."""
        shape: Shape = (field.shape[-3], field.shape[-2], field.shape[-1])
        kernels = [_centred_kernel(shape, each) for each in geometry]
        kernel = torch.stack(kernels).to(field.device, torch.float32)
        with torch.autocast(field.device.type, enabled=False):
            spectrum = torch.fft.fftshift(torch.fft.fftn(field[:, 0].float(), dim=_AXES), dim=_AXES)
        truncated = torch.where(kernel.abs() < self.threshold, self.threshold, kernel)
        tkd = spectrum / truncated
        return torch.stack([tkd.real, tkd.imag, kernel], dim=1)


class _DropoutBlock(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.dropout = nn.Dropout3d(dropout)
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        """Convolution, Leaky-ReLU, dropout, convolution, shortcut, Leaky-ReLU."""
        hidden = self.dropout(F.leaky_relu(self.first(state), _SLOPE))
        result: Tensor = F.leaky_relu(state + self.second(hidden), _SLOPE)
        return result


def _centred_kernel(shape: Shape, geometry: Geometry) -> Float[Tensor, "kx ky kz"]:
    kernel = sampled_kernel(shape, geometry)
    # what the authors' formula gives at k = 0, where a field says nothing of its source
    kernel[0, 0, 0] = 1.0 / 3.0
    centred: Tensor = torch.fft.fftshift(kernel)
    return centred
