r"""Periodic forward differences of neighbouring voxels, their adjoint, and their spectrum.

.. math:: (E_i \chi)(r) = \chi(r + e_i) - \chi(r), \qquad \partial_i = E_i / v_i, \qquad
   \sum_i |\hat\partial_i|^2 = \sum_i (2 - 2 \cos 2 \pi k_i) / v_i^2

with :math:`v_i` the voxel's edge in mm and :math:`k_i` in turns a voxel: an FFT step that divides
by the spectrum inverts exactly what a shrinkage of the differences sees.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Triple


def difference(
    volume: Float[Tensor, "x y z"],
    axis: int,
    out: Float[Tensor, "planes y z"] | None = None,
    slab: slice | None = None,
) -> Float[Tensor, "planes y z"]:
    """Next voxel along ``axis`` less this one, periodic; in the unit of ``volume``, not per mm.

    Of the planes ``slab`` alone, where given.
    """
    here = volume if slab is None else volume[slab]
    made = torch.empty_like(here) if out is None else out
    size = here.shape[axis]
    after, before = (here.narrow(axis, start, size - 1) for start in (1, 0))
    torch.sub(after, before, out=made.narrow(axis, 0, size - 1))
    following = _following(volume, axis, slab)
    torch.sub(following, here.select(axis, -1), out=made.select(axis, -1))
    return made


def add_adjoint(
    total: Float[Tensor, "x y z"],
    edges: Float[Tensor, "planes y z"],
    axis: int,
    factor: float = 1.0,
    slab: slice | None = None,
) -> None:
    """Add ``factor`` times the transpose of `difference`: the value before less this one.

    Of edges of the planes ``slab`` alone, where given.
    """
    here = total if slab is None else total[slab]
    size = edges.shape[axis]
    here.sub_(edges, alpha=factor)
    here.narrow(axis, 1, size - 1).add_(edges.narrow(axis, 0, size - 1), alpha=factor)
    _following(total, axis, slab).add_(edges.select(axis, -1), alpha=factor)


def _following(volume: Tensor, axis: int, slab: slice | None) -> Tensor:
    """Plane after the last one of the slab along ``axis``, periodic in the grid."""
    if slab is None:
        return volume.select(axis, 0)
    if axis == 0:
        return volume[slab.stop % volume.shape[0]]
    return volume[slab].select(axis, 0)


def edges_inside(support: Float[Tensor, "x y z"], axis: int) -> Float[Tensor, "x y z"]:
    """1 where a voxel and the next along ``axis`` are both in ``support``, else 0.

    The step at the surface of the support is none of the object's, and an edge that wraps around
    the grid never counts.
    """
    edges = support * support.roll(-1, axis)
    edges.select(axis, -1).zero_()
    return edges


def laplacian_spectrum(
    shape: tuple[int, int, int],
    voxel_size: Triple,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, "kx ky kz"]:
    """Half spectrum of the sum of squares of the differences, in 1/mm^2."""
    total = torch.zeros((*shape[:2], shape[2] // 2 + 1), dtype=torch.float64, device=device)
    for axis, (size, edge) in enumerate(zip(shape, voxel_size, strict=True)):
        frequency = torch.arange(total.shape[axis], dtype=torch.float64, device=device) / size
        values = (2 - 2 * torch.cos(2 * torch.pi * frequency)) / edge**2
        total += values.reshape([-1 if other == axis else 1 for other in range(3)])
    return total.to(dtype)
