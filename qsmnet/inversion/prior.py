r"""Priors of the ADMM solvers: total variation of first and second order.

Both count an edge between neighbours where both lie in the support: the step at its surface is none
of the object's.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from qsmnet.inversion.fidelity import RELAXATION
from qsmnet.inversion.gradient import difference, edges_inside, laplacian_spectrum
from qsmnet.inversion.unknown_field import DataTerm

_STEP = 1.5  # lambda / rho, in units of the field's spread a voxel


@runtime_checkable
class Prior(Protocol):
    """A prior and the state of its splittings; ``stiffness`` is its quadratic form in k-space."""

    stiffness: Tensor

    def start(self, chi: Tensor) -> None:
        """Set the state as if ``chi`` had just been found."""
        ...

    def pull(self, total: Tensor) -> None:
        """Add what draws chi to ``total``."""
        ...

    def couple(self, spectrum: Tensor) -> None:
        """Add what draws chi and is known in k-space alone."""
        ...

    def advance(self, chi: Tensor, spectrum: Tensor) -> None:
        """Take in the new chi and its half spectrum, neither to be changed."""
        ...

    def raise_by(self, level: float) -> None:
        """Add ``level`` to chi in the support."""
        ...


def first_step(data: DataTerm) -> float:
    """Largest change of a multiplier, lambda / rho, in ppm per mm."""
    return _STEP * data.scale() / math.prod(data.voxel_size) ** (1 / 3)


class TotalVariation:
    r""":math:`\lambda \sum_i \sum_{edges} |\partial_i \chi|`, with lambda times the data's level.

    Gradients are kept as differences of neighbours, which saves a pass over memory.
    """

    def __init__(self, data: DataTerm, strength: float) -> None:
        self.data = data
        self.threshold = first_step(data)
        self.rho = strength / self.threshold
        spectrum = data.spectrum
        self.stiffness = self.rho * laplacian_spectrum(
            data.shape, data.voxel_size, spectrum.dtype, spectrum.device
        )
        self.edges = [edges_inside(data.support, axis) for axis in range(3)]
        # fresh memory costs more than what is done with it
        self.scratch = [torch.empty_like(data.field) for _ in range(2)]

    def start(self, chi: Tensor) -> None:
        """Set the differences."""
        self.gradients = [difference(chi, axis) for axis in range(3)]

    def pull(self, total: Tensor) -> None:
        """Add the divergence of 2 P(v) - v."""
        for axis, variable in enumerate(self.gradients):
            clipped = self._clip(axis)
            edges = self.edges[axis]
            wanted = torch.addcmul(variable, clipped, edges, value=-2, out=self.scratch[1])
            add_divergence(total, wanted, axis, self.rho / self.data.voxel_size[axis] ** 2)

    def couple(self, spectrum: Tensor) -> None:
        """Add nothing."""

    def advance(self, chi: Tensor, spectrum: Tensor) -> None:
        """Over-relaxed."""
        for axis, variable in enumerate(self.gradients):
            clipped = self._clip(axis)
            step = difference(chi, axis, out=self.scratch[1])
            variable.lerp_(step.addcmul_(clipped, self.edges[axis]), RELAXATION)

    def raise_by(self, level: float) -> None:
        """Add the steps at the surface."""
        for axis, variable in enumerate(self.gradients):
            variable.add_(difference(self.data.support, axis, out=self.scratch[0]), alpha=level)

    def _clip(self, axis: int) -> Tensor:
        bound = self.threshold * self.data.voxel_size[axis]
        return torch.clamp(self.gradients[axis], -bound, bound, out=self.scratch[0])


def add_divergence(total: Tensor, edges: Tensor, axis: int, factor: float) -> None:
    """Add ``factor`` times the adjoint difference of ``edges`` along ``axis``."""
    size = edges.shape[axis]
    total.sub_(edges, alpha=factor)
    total.narrow(axis, 1, size - 1).add_(edges.narrow(axis, 0, size - 1), alpha=factor)
    total.select(axis, 0).add_(edges.select(axis, -1), alpha=factor)
