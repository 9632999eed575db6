"""The copy of chi that is confined to the support, of the ADMM solvers."""

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.inversion.fidelity import RELAXATION
from qsmnet.inversion.fluid import UniformFluid
from qsmnet.inversion.slabs import Slabs


class SupportCopy:
    """The splitting s = chi; its proximal step P is zero off the support, and draws the fluid.

    Parameters
    ----------
    support
        1 where chi may be other than zero; None where that is everywhere.
    penalty
        nu of the splitting; with 0 there is none.
    fluid
        What draws the fluid together, if anything.
    """

    def __init__(
        self,
        support: Float[Tensor, "x y z"] | None,
        penalty: float,
        fluid: UniformFluid | None = None,
    ) -> None:
        self.support, self.penalty, self.fluid = support, penalty, fluid

    def start(self, chi: Float[Tensor, "x y z"]) -> None:
        """Set v as if ``chi`` had just been found."""
        self.variable = chi.clone()
        self.slabs = Slabs(chi, scratch=1)

    def pull(self, out: Float[Tensor, "x y z"]) -> None:
        """Set ``out`` to what draws chi: nu (2 P(v) - v)."""
        if not self.penalty:
            out.zero_()
            return
        mean = self._mean_of_fluid()
        for slab in self.slabs:
            part = self._confined(slab, mean, out=out[slab]).mul_(2 * self.penalty)
            part.sub_(self.variable[slab], alpha=self.penalty)

    def advance(self, chi: Float[Tensor, "x y z"]) -> None:
        """Take in the new chi, over-relaxed."""
        if not self.penalty:
            return
        mean = self._mean_of_fluid()
        for slab in self.slabs:
            (work,) = self.slabs.scratch(slab)
            step = self._confined(slab, mean, out=work).sub_(chi[slab])
            self.variable[slab].sub_(step, alpha=RELAXATION)

    def _mean_of_fluid(self) -> Tensor | None:
        return None if self.fluid is None else self.fluid.mean(self.variable)

    def _confined(self, slab: slice, mean: Tensor | None, out: Tensor) -> Tensor:
        if self.support is None:
            out.copy_(self.variable[slab])
        else:
            torch.mul(self.variable[slab], self.support[slab], out=out)
        if self.fluid is not None and mean is not None:
            self.fluid.draw_together(out, mean, slab)
        return out
