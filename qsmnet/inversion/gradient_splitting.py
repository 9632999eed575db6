r"""The proximal side of total variation: a copy of the gradient, and its multiplier, in one array.

ADMM (Boyd et al. 2011, 10.1561/2200000016) with z = grad chi keeps for each axis :math:`v = z + u`.
With P the shrinkage, the copy is P(v) and the multiplier v - P(v): v <- v + a (grad chi - P(v)),
and the quadratic step draws grad chi to 2 P(v) - v.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.geometry import Triple
from qsmnet.inversion.gradient import difference, difference_adjoint, edges_inside


class GradientSplitting:
    r"""Splitting of :math:`\sum_i \sum_{edges} |\partial_i \chi|`, edges inside the support alone.

    Parameters
    ----------
    support
        1 where edges count, else 0; the step at its surface is not penalised.
    voxel_size
        In mm.
    threshold
        By how much the gradient is shrunk in ppm/mm: lambda over the penalty rho.
    relaxation
        a, in [1, 2).
    """

    def __init__(
        self,
        support: Float[Tensor, "x y z"],
        voxel_size: Triple,
        threshold: float,
        relaxation: float = 1.6,
    ) -> None:
        self.relaxation = relaxation
        self.voxel_size = voxel_size
        # differences of neighbours instead of gradients: a pass over memory less
        self.bounds = [threshold * edge for edge in voxel_size]
        self.edges = [edges_inside(support, axis) for axis in range(3)]
        self.variables: Sequence[Tensor] = [torch.zeros_like(support) for _ in range(3)]
        self.scratch = [torch.empty_like(support) for _ in range(2)]

    def start_from(self, chi: Float[Tensor, "x y z"]) -> None:
        """Set the copy to the gradient of ``chi``, the multiplier to zero."""
        self.variables = [difference(chi, axis) for axis in range(3)]

    def pull(self) -> Float[Tensor, "x y z"]:
        """``grad^T (2 P(v) - v)``, in ppm/mm^2."""
        total = torch.zeros_like(self.scratch[0])
        for axis, variable in enumerate(self.variables):
            wanted = torch.addcmul(
                variable, self._clip(axis), self.edges[axis], value=-2, out=self.scratch[1]
            )
            total.add_(difference_adjoint(wanted, axis), alpha=1 / self.voxel_size[axis] ** 2)
        return total

    def advance(self, chi: Float[Tensor, "x y z"]) -> None:
        """Move towards the gradient of ``chi``."""
        for axis, variable in enumerate(self.variables):
            clipped = self._clip(axis)
            step = difference(chi, axis, out=self.scratch[1])
            variable.lerp_(step.addcmul_(clipped, self.edges[axis]), self.relaxation)

    def _clip(self, axis: int) -> Tensor:
        bound = self.bounds[axis]
        return torch.clamp(self.variables[axis], -bound, bound, out=self.scratch[0])
