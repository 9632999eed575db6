"""Means over spheres, the building block of every SHARP-like method."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Shape
from qsmnet.geometry import Geometry

# centres on the sphere's surface belong to it, whatever the rounding
_SURFACE = 1 + 1e-6


def sphere_spectrum(
    shape: Shape,
    radius: float,
    geometry: Geometry,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "kx ky kz"]:
    r"""Half spectrum of the mean over a sphere of ``radius`` mm: real, even, 1 at k = 0.

    The kernel is even along each axis and reaches a few voxels, so that it is a product of three
    small cosine matrices with one octant of its weights: less than a tenth of an FFT.
    """
    octant = _octant(radius, geometry)
    cosines = [
        _cosines(size, planes, reach).to(device)
        for size, planes, reach in zip(
            shape, (shape[0], shape[1], shape[2] // 2 + 1), octant.shape, strict=True
        )
    ]
    partial = torch.einsum("abc,kc,jb->ajk", octant.to(device), cosines[2], cosines[1])
    spectrum = cosines[0] @ partial.reshape(octant.shape[0], -1)
    return spectrum.reshape(shape[0], shape[1], -1)


def sphere_kernel(shape: Shape, radius: float, geometry: Geometry) -> Float[Tensor, "x y z"]:
    r"""Weights of the mean over a voxelised sphere, centred at voxel 0 of an FFT grid.

    .. math:: w = [|r| \le R] \left(a_0 + \sum_i a_i x_i^2\right), \qquad
       \sum w = 1, \quad \sum w x_i^2 \text{ equal for the three axes}

    so that every harmonic polynomial up to third degree equals its mean exactly. For cubic voxels
    the correction vanishes. Without it a voxelised sphere of anisotropic voxels does not have the
    mean value property.
    """
    weights = _sphere_weights(radius, geometry)
    steps = [torch.arange(size) - size // 2 for size in weights.shape]
    x, y, z = (step % size for step, size in zip(steps, shape, strict=True))
    kernel = torch.zeros(shape)
    kernel[x[:, None, None], y[:, None], z] = weights.float()
    return kernel


def _sphere_weights(radius: float, geometry: Geometry) -> Float[Tensor, "x y z"]:
    """Weights on the sphere's box, an odd number of voxels an axis, in float64."""
    axes = [
        edge * torch.arange(-(reach := int(radius * _SURFACE / edge)), reach + 1).double()
        for edge in geometry.voxel_size
    ]
    squares = [axis**2 for axis in torch.meshgrid(*axes, indexing="ij")]
    inside = sum(squares) <= (radius * _SURFACE) ** 2
    weights = torch.zeros_like(squares[0])
    weights[inside] = _isotropic([each[inside] for each in squares])
    return weights


def _isotropic(squares: Sequence[Tensor]) -> Float[Tensor, " voxels"]:
    basis = torch.stack([torch.ones_like(squares[0]), *squares])
    moments = basis @ basis.T
    second = moments[0, 1:].mean() / moments[0, 0]
    target = torch.stack([torch.ones_like(second), second, second, second])
    # too few voxels along an axis leave its moment at zero: no weights would make it equal
    weights: Tensor = torch.linalg.lstsq(moments, target).solution @ basis
    return weights / weights.sum()


def _octant(radius: float, geometry: Geometry) -> Float[Tensor, "x y z"]:
    """Weights at offsets that are not negative; mirrored ones are counted in."""
    weights = _sphere_weights(radius, geometry)
    for axis, size in enumerate(weights.shape):
        half = weights.narrow(axis, size // 2, size - size // 2).clone()
        half.narrow(axis, 1, half.shape[axis] - 1).mul_(2)
        weights = half
    return weights.float()


def _cosines(size: int, planes: int, reach: int) -> Float[Tensor, "planes reach"]:
    angle = torch.outer(torch.arange(planes).double(), torch.arange(reach).double())
    return torch.cos(angle * (2 * torch.pi / size)).float()
