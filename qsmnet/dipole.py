r"""The physics operator: susceptibility (ppm) to field (ppm of B0), and back.

.. math:: b = F^{-1} D F \chi, \qquad D(k) = \frac13 - \frac{(k \cdot b_0)^2}{|k|^2}, \quad D(0) = 0

(Salomir et al. 2003, 10.1002/cmr.b.10083; Marques & Bowtell 2005, 10.1002/cmr.b.20034), with k in
1/mm so that voxel size needs no resampling. Two kernels:

``sampled``
    D on the grid's k samples. Right for band-limited signals such as a scan.
``prism``
    The field of a uniformly magnetised cuboid voxel, at voxel centres, Fourier transformed. Right
    for partial-volume phantoms, whatever the voxel's proportions.

Both are averaged over the sign of the Nyquist frequencies: for an oblique B0 and an even grid D(k)
and D(-k) differ there and a half spectrum would silently drop an imaginary part of up to 19 % of
the field. A centred sphere cannot show it. Kernels are built in float64; FFTs are real.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Literal

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from qsmnet.geometry import Geometry, Triple

Shape = tuple[int, int, int]
Kernel = Literal["sampled", "prism"]

_AXES = (-3, -2, -1)
# the spectra of a voxel size are 6 half grids; in float32, 82 voxel sizes fit at 144^3, 7 at 320^3
_CACHE_BYTES = 3 * 10**9
# float64 arrays of this size, two at a time, stay in a core's cache
_SLAB_VOXELS = 2**16
#: The pairs (i, j) of the six components, in the order that they are stored.
COMPONENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


class Dipole:
    """Convolution with the unit dipole for one geometry, or one geometry an item of a batch.

    Parameters
    ----------
    shape
        Spatial shape of the volumes.
    geometry
        Voxel size and B0 direction; a sequence makes one kernel an item, applied along the first
        axis.
    kernel
        ``"sampled"`` or ``"prism"``.
    padding
        None is the periodic operator on exactly ``shape``. A factor zero-pads each axis by it and
        rounds up to a fast FFT size: 1 for speed alone, 2 for the linear convolution; 1.5 is mostly
        enough.
    dtype, device
        Of the kernel, and so of the volumes.

    Raises
    ------
    ValueError
        If an axis is shorter than 2, ``padding`` is below 1 or ``kernel`` is unknown.
    """

    def __init__(
        self,
        shape: Sequence[int],
        geometry: Geometry | Sequence[Geometry],
        kernel: Kernel = "sampled",
        padding: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(shape) != 3 or min(shape) < 2:
            raise ValueError(
                f"a dipole field needs a 3-D grid of at least 2 voxels, got {tuple(shape)}"
            )
        if padding is not None and padding < 1:
            raise ValueError(f"padding is a factor of at least 1, got {padding}")
        self.shape: Shape = (shape[0], shape[1], shape[2])
        self.padded_shape = padded_shape(self.shape, padding)
        self.geometry = geometry
        if isinstance(geometry, Geometry):
            spectrum = dipole_spectrum(self.padded_shape, geometry, kernel, dtype)
        else:
            spectrum = torch.stack(
                [dipole_spectrum(self.padded_shape, each, kernel, dtype) for each in geometry]
            )
        #: D on the half spectrum of the padded grid: ``(x, y, z // 2 + 1)`` after any batch axis.
        self.spectrum = spectrum.to(device)

    def forward(self, chi: Float[Tensor, "*batch x y z"]) -> Float[Tensor, "*batch x y z"]:
        """Field in ppm of a susceptibility in ppm; one FFT pair."""
        return self.filter(chi, self.spectrum)

    def adjoint(self, field: Float[Tensor, "*batch x y z"]) -> Float[Tensor, "*batch x y z"]:
        """Adjoint of `forward`, which equals it: D is real and even, cropping undoes padding."""
        return self.filter(field, self.spectrum)

    def normal(self, chi: Float[Tensor, "*batch x y z"]) -> Float[Tensor, "*batch x y z"]:
        """``adjoint(forward(chi))``; one FFT pair on a periodic grid, two with padding.

        The crop between the two convolutions is part of the operator, so that multiplication by D^2
        would be wrong on a padded grid.
        """
        if self.padded_shape == self.shape:
            return self.filter(chi, self.spectrum**2)
        return self.adjoint(self.forward(chi))

    def filter(
        self, volume: Float[Tensor, "*batch x y z"], spectrum: Float[Tensor, "*kernel kx ky kz"]
    ) -> Float[Tensor, "*batch x y z"]:
        """Multiply the half spectrum of the padded ``volume`` by a real ``spectrum`` and crop."""
        if tuple(volume.shape[-3:]) != self.shape:
            raise ValueError(f"volume {tuple(volume.shape)} is not on the grid {self.shape}")
        if spectrum.ndim == 4:
            spectrum = spectrum.reshape(
                (spectrum.shape[0],) + (1,) * (volume.ndim - 4) + tuple(spectrum.shape[1:])
            )
        x, y, z = self.shape
        # half precision has no FFT; a training step's autocast must not reach it
        with torch.autocast(volume.device.type, enabled=False):
            volume = volume.to(self.spectrum.dtype)
            transformed = torch.fft.rfftn(volume, s=self.padded_shape, dim=_AXES)
            product = _times(transformed, spectrum)
            result: Tensor = torch.fft.irfftn(product, s=self.padded_shape, dim=_AXES)
        return result[..., :x, :y, :z]


def _times(transformed: Tensor, spectrum: Tensor) -> Tensor:
    # in place where nothing forbids it: fresh memory costs more than the product
    product = torch.broadcast_shapes(transformed.shape, spectrum.shape)  # type: ignore[no-untyped-call]
    grows = product != transformed.shape
    if grows or spectrum.requires_grad:
        return transformed * spectrum
    return transformed.mul_(spectrum)


def check_padding(padding: float) -> None:
    """Raise `ValueError` unless the zero padding factor lies in [1, 8]; NaN does not."""
    if not 1 <= padding <= 8:
        raise ValueError(f"padding must lie in [1, 8], got {padding}")


def padded_shape(shape: Shape, padding: float | None) -> Shape:
    """Grid that FFTs run on: ``shape`` itself without padding, else the next fast sizes."""
    if padding is None:
        return shape
    x, y, z = (int(next_fast_len(max(n, round(n * padding)), real=True)) for n in shape)
    return x, y, z


def dipole_spectrum(
    shape: Shape, geometry: Geometry, kernel: Kernel = "sampled", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "kx ky kz"]:
    """D on the half spectrum ``(x, y, z // 2 + 1)`` of a periodic grid.

    Raises
    ------
    ValueError
        If ``kernel`` is unknown.
    """
    if kernel == "sampled":
        return _sampled(shape, geometry, shape[2] // 2 + 1, dtype)
    if kernel == "prism":
        if _bytes_of_components(shape, dtype) > _CACHE_BYTES:
            return _prism_spectrum_of_one(shape, geometry, dtype)
        components = _prism_spectra(shape, geometry.voxel_size, dtype)
        return torch.einsum("c,cxyz->xyz", direction_weights(geometry.b0_dir).to(dtype), components)
    raise ValueError(f"kernel is 'sampled' or 'prism', got {kernel!r}")


def sampled_kernel(shape: Shape, geometry: Geometry) -> Float[Tensor, "kx ky kz"]:
    """D(k) on the full FFT grid, averaged over the signs of Nyquist frequencies; D(0) = 0.

    In float64. The average is ``(D(k) + D(-k)) / 2`` on the planes and, where two meet, over both
    diagonals, without which a turned or mirrored grid would have another kernel.
    """
    return _sampled(shape, geometry, shape[2])


def full_spectrum(half: Float[Tensor, "kx ky kh"], size: int) -> Float[Tensor, "kx ky kz"]:
    """Full FFT grid of an even spectrum, D(-k) = D(k), of which ``half`` holds the last axis' half.

    ``size`` is the length of the last axis.
    """
    mirrored = half[:, :, 1 : (size + 1) // 2].flip((0, 1, 2))
    # -k of index 0 is index 0: a flip alone would move it to the end
    return torch.cat([half, mirrored.roll((1, 1), (0, 1))], dim=2)


def _sampled(
    shape: Shape, geometry: Geometry, planes: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    # of the last axis the first planes; by slabs along x that stay in the cache, and in place, for
    # else TKD would spend as long here as in its FFTs
    along, square, nyquist = [], [], []
    for axis, (n, d, b) in enumerate(zip(shape, geometry.voxel_size, geometry.b0_dir, strict=True)):
        frequency = torch.fft.fftfreq(n, d, dtype=torch.float64)[: planes if axis == 2 else n]
        view = [-1 if other == axis else 1 for other in range(3)]
        square.append((frequency**2).reshape(view))
        along.append(b * _without_nyquist(frequency, n).reshape(view))
        # what the odd part lacks at the Nyquist plane, squared
        lost = torch.zeros_like(frequency)
        if n % 2 == 0 and n // 2 < len(lost):
            lost[n // 2] = (b * float(frequency[n // 2])) ** 2
        nyquist.append(lost.reshape(view))
    kernel = torch.empty((*shape[:2], planes), dtype=dtype)
    count = max(1, _SLAB_VOXELS // (shape[1] * planes))
    for start in range(0, shape[0], count):
        x = slice(start, start + count)
        slab = (along[0][x] + along[1] + along[2]).square_()
        for axis, lost in enumerate(nyquist):
            slab += lost[x] if axis == 0 else lost
        square_slab = square[0][x] + square[1] + square[2]
        if start == 0:
            square_slab[0, 0, 0] = 1.0
        kernel[x] = slab.div_(square_slab).neg_().add_(1.0 / 3.0)
    kernel[0, 0, 0] = 0.0
    return kernel


def _without_nyquist(values: Tensor, size: int) -> Tensor:
    # n / 2 and -n / 2 are one sample of an even grid: the mean of an odd function there is zero
    result = values.clone()
    if size % 2 == 0:
        result[size // 2] = 0.0
    return result


def direction_weights(b0_dir: Triple) -> Float[Tensor, "6"]:
    """Weights ``b_i b_j`` (twice off the diagonal) that turn six component spectra into D."""
    weights = [b0_dir[i] * b0_dir[j] * (1.0 if i == j else 2.0) for i, j in COMPONENTS]
    return torch.tensor(weights, dtype=torch.float64)


class TensorCache:
    """The tensors used last, as many as fit into a number of bytes.

    A tensor larger than that is made anew each time. Threads may share a cache: two that miss at
    once both make the tensor, and one is kept.

    Parameters
    ----------
    limit
        In bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(each.nbytes for each in self._kept.values())

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return the tensor of ``key``, from ``make`` where it is not kept; not to be changed."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        if made.nbytes <= self.limit:
            self._keep(key, made)
        return made

    def _keep(self, key: Hashable, made: Tensor) -> None:
        with self._lock:
            self._kept[key] = made
            while self.size > self.limit:
                self._kept.popitem(last=False)


_spectra = TensorCache(_CACHE_BYTES)


def _prism_spectra(
    shape: Shape, voxel_size: Triple, dtype: torch.dtype
) -> Float[Tensor, "6 kx ky kz"]:
    return _spectra.get(
        (shape, voxel_size, dtype), lambda: _make_prism_spectra(shape, voxel_size, dtype)
    )


def _make_prism_spectra(
    shape: Shape, voxel_size: Triple, dtype: torch.dtype
) -> Float[Tensor, "6 kx ky kz"]:
    components = prism_components(shape, voxel_size)
    # the kernel is even, so that its spectrum is real
    return torch.stack([torch.fft.rfftn(each).real.to(dtype) for each in components])


def _bytes_of_components(shape: Shape, dtype: torch.dtype) -> int:
    return len(COMPONENTS) * shape[0] * shape[1] * (shape[2] // 2 + 1) * dtype.itemsize


def _prism_spectrum_of_one(
    shape: Shape, geometry: Geometry, dtype: torch.dtype
) -> Float[Tensor, "kx ky kz"]:
    """D of one direction, summed before its only transform: whole heads on a fine grid.

    What `_prism_spectra` keeps for every direction would be six such volumes.
    """
    total = torch.zeros(shape, dtype=dtype)
    for c, weight in enumerate(direction_weights(geometry.b0_dir).tolist()):
        if weight != 0:
            octant = prism_octant(c, tuple(n // 2 + 1 for n in shape), geometry.voxel_size)
            total.add_(_by_parity(octant.to(dtype), c, shape), alpha=weight)
    spectrum: Tensor = torch.fft.rfftn(total).real
    # a view would keep the imaginary part in memory
    return spectrum.clone()


def prism_components(shape: Shape, voxel_size: Triple) -> Float[Tensor, "6 x y z"]:
    r"""Six components of the field of one uniformly magnetised voxel at the origin of an FFT grid.

    The field of a voxel of unit susceptibility, Lorentz-corrected, is
    :math:`h(r) = \sum_{ij} b_i b_j (\delta_{ij} [r = 0] / 3 - N_{ij}(r))`, with the demagnetising
    tensor of a cuboid in closed form (Joseph & Schlömann 1965, 10.1063/1.1703091; Newell et al.
    1993): a sum over the eight corners of :math:`\arctan(yz / xR) / 4\pi` (diagonal) and
    :math:`-\ln(z + R) / 4\pi`.

    Only the octant of non-negative offsets is computed; the rest follows from parity.
    """
    size = tuple(n // 2 + 1 for n in shape)
    octants = (prism_octant(c, size, voxel_size) for c in range(len(COMPONENTS)))
    return torch.stack([_by_parity(octant, c, shape) for c, octant in enumerate(octants)])


def _by_parity(octant: Tensor, component: int, shape: Shape) -> Float[Tensor, "x y z"]:
    """Whole FFT grid of a component; the mixed ones are odd along their two axes."""
    index = [(torch.fft.fftfreq(n) * n).round().long() for n in shape]
    gathered = octant[index[0].abs()][:, index[1].abs()][:, :, index[2].abs()]
    if component >= 3:
        for axis in COMPONENTS[component]:
            signs = _without_nyquist(index[axis].sign().to(octant.dtype), shape[axis])
            gathered *= signs.reshape([-1 if other == axis else 1 for other in range(3)])
    return gathered


def prism_octant(
    component: int, shape: Sequence[int], voxel_size: Triple, start: int = 0
) -> Float[Tensor, "x y z"]:
    """One of `prism_components` at offsets that are not negative, from ``start`` on along x."""
    # corners of voxel n lie at (n - 1/2) d and (n + 1/2) d; one evaluation a corner, then
    # differences
    corners = [
        ((torch.arange(n + 1, dtype=torch.float64) + (begin - 0.5)) * d).reshape(
            [-1 if other == axis else 1 for other in range(3)]
        )
        for axis, (n, d, begin) in enumerate(zip(shape, voxel_size, (start, 0, 0), strict=True))
    ]
    radius = (corners[0] ** 2 + corners[1] ** 2 + corners[2] ** 2).sqrt()
    i, j = COMPONENTS[component]
    if i == j:
        first, second = (corners[axis] for axis in range(3) if axis != i)
        potential = torch.atan(first * second / (corners[i] * radius))
    else:
        potential = -torch.log(corners[3 - i - j] + radius)
    octant = -_corner_difference(potential) / (4 * torch.pi)
    if i == j and start == 0:
        octant[0, 0, 0] += 1.0 / 3.0
    return octant


def _corner_difference(potential: Tensor) -> Tensor:
    for axis in range(3):
        potential = potential.diff(dim=axis)
    return potential
