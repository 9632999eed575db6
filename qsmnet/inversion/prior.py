r"""Priors of the ADMM solvers: total variation of first and second order.

Both count an edge between neighbours where both lie in the support: the step at its surface is none
of the object's.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from qsmnet.inversion.fidelity import AXES, RELAXATION
from qsmnet.inversion.gradient import (
    add_adjoint,
    difference,
    edges_inside,
    laplacian_spectrum,
)
from qsmnet.inversion.slabs import Slabs
from qsmnet.inversion.unknown_field import DataTerm

_STEP = 1.5  # lambda / rho, in units of the field's spread a voxel
_BEND_STEP = 1.0  # the same of the second order, in units of the first's a voxel
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


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

    Gradients are kept as differences of neighbours, which saves a pass over memory. Edges may be
    given: 1 where one counts, one array an axis.
    """

    def __init__(
        self, data: DataTerm, strength: float, edges: Sequence[Tensor] | None = None
    ) -> None:
        self.data = data
        self.threshold = first_step(data)
        self.rho = strength / self.threshold
        spectrum = data.spectrum
        self.stiffness = self.rho * laplacian_spectrum(
            data.shape, data.voxel_size, spectrum.dtype, spectrum.device
        )
        inside = [edges_inside(data.support, axis) for axis in range(3)]
        self.edges = inside if edges is None else edges
        self.slabs = Slabs(data.field, scratch=2)

    def start(self, chi: Tensor) -> None:
        """Set the differences."""
        self.gradients = [difference(chi, axis) for axis in range(3)]

    def pull(self, total: Tensor) -> None:
        """Add the divergence of 2 P(v) - v."""
        for slab in self.slabs:
            for axis in range(3):
                variable, edges = self.gradients[axis][slab], self.edges[axis][slab]
                clipped, wanted = self._clip(axis, slab)
                torch.addcmul(variable, clipped, edges, value=-2, out=wanted)
                add_adjoint(total, wanted, axis, self.rho / self.data.voxel_size[axis] ** 2, slab)

    def couple(self, spectrum: Tensor) -> None:
        """Add nothing."""

    def advance(self, chi: Tensor, spectrum: Tensor) -> None:  # noqa: ARG002 the protocol's
        """Over-relaxed."""
        for slab in self.slabs:
            for axis in range(3):
                variable, edges = self.gradients[axis][slab], self.edges[axis][slab]
                clipped, step = self._clip(axis, slab)
                difference(chi, axis, step, slab).addcmul_(clipped, edges)
                variable.lerp_(step, RELAXATION)

    def raise_by(self, level: float) -> None:
        """Add the steps at the surface."""
        for slab in self.slabs:
            for axis, variable in enumerate(self.gradients):
                step, _ = self.slabs.scratch(slab)
                difference(self.data.support, axis, step, slab)
                variable[slab].add_(step, alpha=level)

    def _clip(self, axis: int, slab: slice) -> tuple[Tensor, Tensor]:
        """Clip the variable; with it, memory to work in."""
        bound = self.threshold * self.data.voxel_size[axis]
        clipped, free = self.slabs.scratch(slab)
        torch.clamp(self.gradients[axis][slab], -bound, bound, out=clipped)
        return clipped, free


class GeneralisedVariation:
    r"""Total generalised variation of second order; three FFT pairs more an iteration.

    .. math:: \lambda \min_w \sum_i \sum_{edges} |\partial_i \chi - w_i|
       + \lambda_2 \sum_{ij} |\tfrac12 (\partial_i w_j + \partial_j w_i)|

    w is eliminated in k-space. Its own matrix is a multiple of the identity and a rank-one term
    along the symbol of the gradient, since all differences are forward ones (the mixed derivatives
    of w, which lives on edges, then fall on one place): a closed form, where 4 x 4 systems are
    usual.

    Parameters
    ----------
    data
        The data term.
    strength, second
        lambda and lambda_2, in ppm mm and ppm mm^2, times the data's level.
    """

    def __init__(self, data: DataTerm, strength: float, second: float) -> None:
        self.data = data
        edge = math.prod(data.voxel_size) ** (1 / 3)
        self.thresholds = first_step(data), _BEND_STEP * first_step(data) / edge
        self.rho, self.rho_2 = strength / self.thresholds[0], second / self.thresholds[1]
        self.edges = [edges_inside(data.support, axis) for axis in range(3)]
        self.corners = [self._corners(i, j) for i, j in _PAIRS]
        self.symbols = [_symbol(data, axis) for axis in range(3)]
        laplacian = laplacian_spectrum(
            data.shape, data.voxel_size, data.spectrum.dtype, data.spectrum.device
        )
        # the matrix of w, along the gradient and across
        self.along = self.rho + self.rho_2 * laplacian
        self.across = self.rho + 0.5 * self.rho_2 * laplacian
        self.stiffness = self.rho * self.rho_2 * laplacian**2 / self.along
        self.laplacian = laplacian
        self.scratch = [torch.empty_like(data.field) for _ in range(3)]

    def start(self, chi: Tensor) -> None:
        """Set w to zero."""
        self.slopes = [
            difference(chi, axis).div_(edge) for axis, edge in enumerate(self.data.voxel_size)
        ]
        self.bends = [torch.zeros_like(chi) for _ in _PAIRS]

    def pull(self, total: Tensor) -> None:
        """Add the divergence of 2 P(v) - v of the slopes; work out what draws w."""
        edges = self.data.voxel_size
        drawn = [torch.zeros_like(total) for _ in range(3)]
        for axis, slope in enumerate(self.slopes):
            wanted = self._reflected(slope, self.edges[axis], self.thresholds[0])
            drawn[axis].sub_(wanted, alpha=self.rho)
            add_adjoint(total, wanted, axis, self.rho / edges[axis])
        for (i, j), bend, inside in zip(_PAIRS, self.bends, self.corners, strict=True):
            wanted = self._reflected(bend, inside, self.thresholds[1])
            add_adjoint(drawn[i], wanted, j, self.rho_2 / edges[j])
            if i != j:
                add_adjoint(drawn[j], wanted, i, self.rho_2 / edges[i])
        self.drawn = [torch.fft.rfftn(each, dim=AXES) for each in drawn]

    def couple(self, spectrum: Tensor) -> None:
        """Add what w passes on to chi."""
        divergence = torch.zeros_like(spectrum)
        for symbol, each in zip(self.symbols, self.drawn, strict=True):
            divergence.add_(symbol.conj() * each)
        self.divergence = divergence
        spectrum.add_(divergence / self.along, alpha=self.rho)

    def advance(self, chi: Tensor, spectrum: Tensor) -> None:
        """Find w, then over-relax both orders."""
        w = self._find(spectrum)
        for axis, slope in enumerate(self.slopes):
            step = difference(chi, axis, out=self.scratch[1]).div_(self.data.voxel_size[axis])
            self._relax(slope, step.sub_(w[axis]), self.edges[axis], self.thresholds[0])
        for (i, j), bend, inside in zip(_PAIRS, self.bends, self.corners, strict=True):
            step = self._slope(w[i], j, 1)
            if i != j:
                step = step.add_(self._slope(w[j], i, 2)).mul_(0.5)
            self._relax(bend, step, inside, self.thresholds[1])

    def raise_by(self, level: float) -> None:
        """Add the steps at the surface."""
        for axis, slope in enumerate(self.slopes):
            slope.add_(self._slope(self.data.support, axis, 0), alpha=level)

    def _find(self, spectrum: Tensor) -> list[Tensor]:
        total = (spectrum * self.laplacian).mul_(self.rho).add_(self.divergence)
        passed = total.mul_(-0.5 * self.rho_2).div_(self.along).add_(spectrum, alpha=self.rho)
        found = []
        for symbol, each in zip(self.symbols, self.drawn, strict=True):
            part = each.add_(symbol * passed).div_(self.across)
            found.append(torch.fft.irfftn(part, s=self.data.shape, dim=AXES))
        return found

    def _slope(self, volume: Tensor, axis: int, scratch: int) -> Tensor:
        step = difference(volume, axis, out=self.scratch[scratch])
        return step.div_(self.data.voxel_size[axis])

    def _reflected(self, variable: Tensor, inside: Tensor, bound: float) -> Tensor:
        clipped = torch.clamp(variable, -bound, bound, out=self.scratch[0])
        return torch.addcmul(variable, clipped, inside, value=-2, out=self.scratch[1])

    def _relax(self, variable: Tensor, step: Tensor, inside: Tensor, bound: float) -> None:
        clipped = torch.clamp(variable, -bound, bound, out=self.scratch[0])
        variable.lerp_(step.addcmul_(clipped, inside), RELAXATION)

    def _corners(self, i: int, j: int) -> Tensor:
        """1 where every edge that a derivative of w looks at lies in the support."""
        return edges_inside(self.edges[i], j) * edges_inside(self.edges[j], i)


def _symbol(data: DataTerm, axis: int) -> Tensor:
    """Of the difference per mm along ``axis``, on the half spectrum."""
    size = data.shape[axis]
    count = data.spectrum.shape[axis]
    turns = 2j * torch.pi * torch.arange(count, device=data.spectrum.device) / size
    symbol = (torch.exp(turns) - 1) / data.voxel_size[axis]
    return symbol.reshape([-1 if other == axis else 1 for other in range(3)])
