"""Field of a whole head on its fine grid: `qsmnet.dipole.Dipole` in a fifth of the memory.

Kernel and grid are those of ``Dipole(shape, geometry, "prism", padding)``; results differ by
rounding. Each component of the kernel is even or odd along every axis, so that one octant of its
spectrum is kept, found by cosine and sine transforms of one octant in space. FFTs leave out the
rows that padding makes zero and those that cropping drops, and the last axis is worked through in
pieces: at 1 mm, 0.9 GB take the place of 4.6 GB.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import COMPONENTS, Shape, direction_weights, padded_shape, prism_octant
from qsmnet.geometry import Geometry

# complex samples that are worked on at once
_PIECE = 4_000_000


class LargeDipole:
    """Convolution with the prism kernel of one geometry.

    Parameters
    ----------
    shape
        Of the volumes.
    geometry
        Voxel size and B0 direction.
    padding
        Zero padding of each axis, as a factor.
    """

    def __init__(self, shape: Sequence[int], geometry: Geometry, padding: float) -> None:
        self.shape: Shape = (shape[0], shape[1], shape[2])
        self.padded_shape = padded_shape(self.shape, padding)
        #: By the axes along which they are odd, octants of the spectrum.
        self.octants = _octants(self.padded_shape, geometry)

    def forward(self, chi: Float[Tensor, "x y z"], first: int = 0) -> Float[Tensor, "x y view"]:
        """Field in ppm of a susceptibility in ppm, from voxel ``first`` of the last axis on."""
        columns = self._columns(chi)
        for piece in _pieces(columns.shape[1], self.padded_shape[0] * columns.shape[2]):
            rows = torch.fft.fft(columns[:, piece], n=self.padded_shape[0], dim=0)
            rows.mul_(self._spectrum(piece))
            columns[:, piece] = torch.fft.ifft(rows, dim=0)[: self.shape[0]]
        return self._volume(columns, first)

    def _columns(self, chi: Tensor) -> Tensor:
        """Transform along the last two axes."""
        _, y, z = self.padded_shape
        columns = chi.new_empty((self.shape[0], y, z // 2 + 1), dtype=torch.complex64)
        for piece in _pieces(self.shape[0], y * (z // 2 + 1)):
            columns[piece] = torch.fft.fft(torch.fft.rfft(chi[piece], n=z), n=y, dim=1)
        return columns

    def _volume(self, columns: Tensor, first: int) -> Tensor:
        x, y, z = self.shape
        volume = torch.empty((x, y, z - first), device=columns.device)
        for piece in _pieces(x, columns.shape[1] * columns.shape[2]):
            planes = torch.fft.ifft(columns[piece], dim=1)[:, :y]
            volume[piece] = torch.fft.irfft(planes, n=self.padded_shape[2])[..., first:z]
        return volume

    def _spectrum(self, piece: slice) -> Tensor:
        """D on some frequencies of the second axis, from the octants by parity."""
        x, y, _ = self.padded_shape
        along_x = torch.fft.fftfreq(x, 1 / x).round().long()
        along_y = torch.fft.fftfreq(y, 1 / y).round().long()[piece]
        total: Tensor | float = 0.0
        for odd, octant in self.octants.items():
            part = octant[:, along_y.abs()][along_x.abs()]
            if 0 in odd:
                part *= along_x.sign()[:, None, None]
            if 1 in odd:
                part *= along_y.sign()[:, None]
            total = total + part
        return torch.as_tensor(total)


def _pieces(size: int, rest: int) -> Iterator[slice]:
    thickness = max(1, _PIECE // rest)
    for start in range(0, size, thickness):
        yield slice(start, min(size, start + thickness))


def _octants(shape: Shape, geometry: Geometry) -> dict[tuple[int, ...], Tensor]:
    octants: dict[tuple[int, ...], Tensor] = {}
    for component, weight in enumerate(direction_weights(geometry.b0_dir).tolist()):
        if weight == 0:
            continue
        odd = COMPONENTS[component] if component >= 3 else ()
        kernel = _kernel_octant(component, shape, geometry) * weight
        # those of the diagonal have one symmetry: one transform for their sum
        octants[odd] = octants[odd].add_(kernel) if odd in octants else kernel
    return {odd: _transform(octant, shape, odd) for odd, octant in octants.items()}


def _kernel_octant(component: int, shape: Shape, geometry: Geometry) -> Tensor:
    x, y, z = (n // 2 + 1 for n in shape)
    octant = torch.empty((x, y, z))
    # in float64, where far fields are small differences, piece by piece
    for piece in _pieces(x, y * z):
        size = (piece.stop - piece.start, y, z)
        octant[piece] = prism_octant(component, size, geometry.voxel_size, piece.start)
    return octant


def _transform(octant: Tensor, shape: Shape, odd: Sequence[int]) -> Tensor:
    """Spectrum of an octant's periodic continuation, even but along the axes ``odd``."""
    for axis, n in enumerate(shape):
        matrix = _sines(n) if axis in odd else _cosines(n)
        octant = torch.tensordot(octant, matrix, dims=([0], [1]))
    # tensordot has turned the axes once around; two sine transforms bring i twice
    return octant.neg_() if odd else octant


def _cosines(n: int) -> Tensor:
    angle, half = _angles(n)
    # offsets 0 and n / 2 are their own mirror image
    own = (half == 0) | (2 * half == n)
    return (angle.cos() * torch.where(own, 1.0, 2.0)).float()


def _sines(n: int) -> Tensor:
    return (2 * _angles(n)[0].sin()).float()


def _angles(n: int) -> tuple[Tensor, Tensor]:
    half = torch.arange(n // 2 + 1, dtype=torch.float64)
    # whole turns off first: the product has many
    turns = torch.outer(half, half) % n / n
    return 2 * torch.pi * turns, half
