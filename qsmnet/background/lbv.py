r"""Background removal by Laplace's equation."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsmnet.background.crop import Crop
from qsmnet.background.depth import depth_in_mask
from qsmnet.background.removal import local_field_on
from qsmnet.conjugate_gradient import conjugate_gradient
from qsmnet.dipole import Shape
from qsmnet.errors import InconsistentError
from qsmnet.geometry import Triple
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, TotalField


@dataclass(frozen=True)
class Lbv:
    r"""LBV: the background is harmonic in the mask and is all there is at its boundary.

    Zhou et al. 2014, 10.1002/nbm.3064.

    .. math:: \nabla^2 b = \nabla^2 f \text{ inside}, \qquad b = 0 \text{ at the boundary}

    with the Laplacian of the six neighbours. Differs from the paper, which has multigrid: conjugate
    gradients, conditioned by the same equation on the whole periodic box, which one FFT pair
    solves; three times the voxels an axis take 1.7 times the iterations.

    The field at the boundary, noise and local field too, is taken to be background: errors there
    reach inward. ``peel`` moves the boundary to where the field is better known.

    Parameters
    ----------
    peel
        In mm; the mask is eroded by this first, beyond the layer of voxels that make the boundary.
    tolerance, max_iterations
        Conjugate gradients end when the residual has fallen by ``tolerance``; at most this often.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    peel: float = 2.0
    tolerance: float = 0.01
    max_iterations: int = 100

    summary: ClassVar[Summary] = Summary(
        cost="1 FFT pair an iteration, 10 to 15 iterations",
        use="Where the field is known well up to the mask's edge and as much as possible is kept.",
        reference="Zhou et al. 2014, 10.1002/nbm.3064",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not 0 <= self.peel < math.inf:
            raise ValueError(f"peel is in mm and not negative, got {self.peel}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < 1:
            raise ValueError("max_iterations is at least 1, tolerance at least 0 and below 1")

    def __call__(self, total: TotalField, /) -> LocalField:
        """Local field inside the peeled mask's boundary; noise and magnitude are passed on.

        Raises
        ------
        InconsistentError
            If nothing is left inside.
        """
        edges = total.geometry.voxel_size
        crop = Crop.of(total.mask, 2 * max(edges), total.geometry)
        depth = crop.pad(depth_in_mask(total.mask[crop.box], total.geometry, self.peel))
        kept = depth > self.peel
        inside = _six_neighbours_too(kept)
        if not bool(inside.any()):
            raise InconsistentError(
                "mask",
                f"nothing is left inside after {self.peel:g} mm",
                "use a larger mask or --set-background peel=0",
            )
        local = self._solve(crop.take_inside(total) * kept, inside.float(), crop, edges)
        known = crop.put(inside.float(), total.mask) > 0
        return local_field_on(known, crop.put(local, total.mask), total)

    def _solve(self, field: Tensor, inside: Tensor, crop: Crop, edges: Triple) -> Tensor:
        inverse = _poisson_spectrum(crop.shape, edges).to(field.device)
        wanted = _minus_laplacian(field, edges).mul_(inside)
        return conjugate_gradient(
            lambda volume: _minus_laplacian(volume, edges).mul_(inside),
            wanted,
            self.max_iterations,
            self.tolerance,
            lambda residual: crop.filter(residual, inverse).mul_(inside),
        )


def _six_neighbours_too(mask: Tensor) -> Tensor:
    # the grid is wider than the mask, so that what is rolled in is outside
    inside = mask.clone()
    for axis in range(3):
        for step in (-1, 1):
            inside &= mask.roll(step, axis)
    return inside


def _minus_laplacian(volume: Tensor, edges: Triple) -> Tensor:
    """Sum over the six neighbours of the differences to them over the squared edge."""
    result = volume * sum(2 / edge**2 for edge in edges)
    for axis, edge in enumerate(edges):
        size = volume.shape[axis]
        weight = 1 / edge**2
        before, after = volume.narrow(axis, 0, size - 1), volume.narrow(axis, 1, size - 1)
        result.narrow(axis, 1, size - 1).sub_(before, alpha=weight)
        result.narrow(axis, 0, size - 1).sub_(after, alpha=weight)
    return result


def _poisson_spectrum(shape: Shape, edges: Triple) -> Tensor:
    """One over the spectrum of `_minus_laplacian` on the periodic grid, finite at k = 0."""
    laplacian = torch.zeros(shape[0], shape[1], shape[2] // 2 + 1)
    for axis, (size, edge) in enumerate(zip(shape, edges, strict=True)):
        index = torch.arange(laplacian.shape[axis]).double()
        wave = (2 - 2 * torch.cos(2 * torch.pi * index / size)) / edge**2
        laplacian += wave.float().reshape([-1 if other == axis else 1 for other in range(3)])
    laplacian[0, 0, 0] = laplacian.ravel()[1:].min()
    return laplacian.reciprocal_()
