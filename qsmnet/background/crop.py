"""The part of a scan that background removal works on: the mask's box, zero-padded for FFTs."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.fft import next_fast_len
from torch import Tensor

from qsmnet.dipole import Shape
from qsmnet.geometry import Geometry
from qsmnet.volumes import Box, TotalField, bounding_box

_AXES = (-3, -2, -1)


@dataclass(frozen=True, slots=True)
class Crop:
    """A box of the scan's grid in the first corner of a periodic FFT grid.

    Beyond the mask nothing is used, so that the field of view costs nothing.

    Parameters
    ----------
    box
        Where it lies in the scan's grid.
    shape
        Of the FFT grid; what is beyond the box is zero and outside the mask.
    """

    box: Box
    shape: Shape

    @classmethod
    def of(cls, mask: Bool[Tensor, "x y z"], margin: float, geometry: Geometry) -> "Crop":
        """Box of ``mask``, with ``margin`` mm of zeros between it and its periodic images."""
        box = bounding_box(mask)
        x, y, z = (
            int(next_fast_len(part.stop - part.start + max(int(margin / edge), 0) + 1, real=True))
            for part, edge in zip(box, geometry.voxel_size, strict=True)
        )
        return cls(box, (x, y, z))

    def take(
        self, volume: Float[Tensor, "x y z"] | Bool[Tensor, "x y z"]
    ) -> Float[Tensor, "px py pz"]:
        """Move a volume of the scan's grid to the FFT grid, in float32."""
        return self.pad(volume[self.box])

    def take_inside(self, total: TotalField) -> Float[Tensor, "px py pz"]:
        """Move a field to the FFT grid, zero outside its mask, whatever is there."""
        return self.pad(torch.where(total.mask[self.box], total.field[self.box], 0.0))

    def pad(
        self, part: Float[Tensor, "bx by bz"] | Bool[Tensor, "bx by bz"]
    ) -> Float[Tensor, "px py pz"]:
        """Move a volume of the box to the FFT grid, in float32."""
        result = torch.zeros(self.shape, dtype=torch.float32, device=part.device)
        x, y, z = part.shape
        result[:x, :y, :z] = part
        return result

    def put(self, volume: Float[Tensor, "px py pz"], like: Tensor) -> Float[Tensor, "x y z"]:
        """Move a volume back to the scan's grid, zero beyond the box."""
        result = torch.zeros(like.shape, dtype=volume.dtype, device=volume.device)
        x, y, z = (part.stop - part.start for part in self.box)
        result[self.box] = volume[:x, :y, :z]
        return result

    def transform(self, volume: Float[Tensor, "px py pz"]) -> Tensor:
        """Half spectrum."""
        spectrum: Tensor = torch.fft.rfftn(volume, dim=_AXES)
        return spectrum

    def back(self, spectrum: Tensor) -> Float[Tensor, "px py pz"]:
        """Volume of a half spectrum."""
        volume: Tensor = torch.fft.irfftn(spectrum, s=self.shape, dim=_AXES)
        return volume

    def filter(
        self, volume: Float[Tensor, "px py pz"], spectrum: Float[Tensor, "kx ky kz"]
    ) -> Float[Tensor, "px py pz"]:
        """Convolution with a kernel of a real spectrum; one FFT pair."""
        transformed = self.transform(volume)
        return self.back(times_real(transformed, spectrum, out=transformed))


def times_real(spectrum: Tensor, by: Tensor, out: Tensor) -> Tensor:
    """Complex times real into ``out``, without a complex copy of the real factor."""
    torch.mul(spectrum.real, by, out=out.real)
    torch.mul(spectrum.imag, by, out=out.imag)
    return out
