r"""Laplacian unwrapping: fast, never stuck, and only approximate."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.fft import dctn, idctn
from torch import Tensor

from qsmnet.geometry import Geometry
from qsmnet.phase.scale import wrap
from qsmnet.summary import Summary
from qsmnet.volumes import Scan


@dataclass(frozen=True)
class LaplacianUnwrap:
    r"""Least-squares unwrapping (Ghiglia & Romero 1994, 10.1364/JOSAA.11.000107).

    .. math:: \nabla^2 u = \nabla \cdot \mathcal{W}(\nabla \phi), \qquad \partial_n u = 0

    with wrapped differences :math:`\mathcal{W}(\nabla\phi)` in place of
    :math:`\cos\phi\nabla^2\sin\phi - \sin\phi\nabla^2\cos\phi` (Schofield & Zhu 2003), from
    which it differs by being exact on a smooth phase that fills the grid. It is solved by a cosine
    transform. Where the wrapped differences have a curl (noise, vessels, the mask's edge) the error
    spreads: part of the field is lost, and the result is not the wrapped phase plus multiples of
    2 pi. The free constant makes it agree with the wrapped phase in the mask on average.
    """

    exact: ClassVar[bool] = False
    summary: ClassVar[Summary] = Summary(
        cost="1 cosine transform pair an echo",
        use="A first look: never stuck, but loses part of the field near veins, air and noise.",
        reference="Ghiglia & Romero 1994, 10.1364/JOSAA.11.000107",
    )

    def __call__(
        self, scan: Scan, mask: Bool[Tensor, "x y z"], /, count: int | None = None
    ) -> Float[Tensor, "echo x y z"]:
        """Unwrapped phase in rad of the first ``count`` echoes (all), zero outside the mask."""
        inside = torch.where(mask, scan.wrapped_phase[:count], 0.0)
        return torch.stack([_unwrap_volume(volume, mask, scan.geometry) for volume in inside])


def _unwrap_volume(wrapped: Tensor, mask: Tensor, geometry: Geometry) -> Tensor:
    divergence = torch.zeros(wrapped.shape, dtype=torch.float64)
    for axis, edge in enumerate(geometry.voxel_size):
        # a difference across the mask's edge tells nothing about the field inside
        both = mask.narrow(axis, 1, mask.shape[axis] - 1) & mask.narrow(
            axis, 0, mask.shape[axis] - 1
        )
        step = torch.where(both, wrap(wrapped.diff(dim=axis)), 0.0).double() / edge**2
        divergence.narrow(axis, 0, step.shape[axis]).add_(step)
        divergence.narrow(axis, 1, step.shape[axis]).sub_(step)
    smooth = _solve_poisson(divergence, geometry).to(wrapped.dtype)
    offset = torch.polar(torch.ones_like(wrapped), wrapped - smooth)[mask].sum().angle()
    return torch.where(mask, smooth + offset, 0.0)


def _solve_poisson(divergence: Tensor, geometry: Geometry) -> Tensor:
    eigenvalues = np.zeros(tuple(divergence.shape))
    for axis, (size, edge) in enumerate(zip(divergence.shape, geometry.voxel_size, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = size
        along = 2.0 * (np.cos(np.pi * np.arange(size) / size) - 1.0) / edge**2
        eigenvalues = eigenvalues + along.reshape(shape)
    eigenvalues[0, 0, 0] = 1.0
    spectrum = dctn(divergence.numpy(), norm="ortho") / eigenvalues
    spectrum[0, 0, 0] = 0.0
    return torch.from_numpy(idctn(spectrum, norm="ortho"))
