"""Total generalised variation of second order by ADMM."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsmnet.inversion.fidelity import Nonlinear, Quadratic
from qsmnet.inversion.prior import GeneralisedVariation, Prior
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.inversion.variational import LINEAR, Variational
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField


@dataclass(frozen=True)
class TGV(Variational):
    r"""Total generalised variation of second order: slopes are free, bends cost.

    .. math:: \min_{\chi, w, c, h}\ \tfrac12 \sum W (D\chi + c + h - b)^2
       + \lambda \Big( \sum_i \sum_{edges} |\partial_i \chi - w_i|
       + \ell \sum_{ij} |\tfrac12 (\partial_i w_j + \partial_j w_i)| \Big)
       + \tfrac{\beta}{2} \sum_{mask} (\nabla^2 h)^2, \qquad \chi = 0 \text{ off the mask}

    The prior is that of Langkammer et al. 2015 (10.1016/j.neuroimage.2015.02.041), the ADMM that of
    Milovic et al. 2018 (10.1002/mrm.27073); the rest is as in `TV`. Where chi varies smoothly TV
    makes steps and this does not; :math:`\ell \to \infty` is TV.

    Differs from Langkammer et al.: a local field is inverted, by k-space division, not the wrapped
    phase's Laplacian by a thousand steps of a primal-dual method, and the step at the mask's
    surface is free. Differs from common codes: w is eliminated in closed form instead of a 4 x 4
    system for each k, differences are all forward ones, sums are over components (not rotated
    ones), as in `TV`.

    **Scaling of** :math:`\lambda`. As in `TV`, ppm mm; the second strength is
    :math:`\lambda \ell`, in ppm mm^2, so that a finer grid keeps both.

    Parameters
    ----------
    regularisation
        :math:`\lambda` of a noise-free field, in ppm mm.
    noise_gain
        Growth of :math:`\lambda` with the noise of the field, in mm.
    support
        ``mask`` confines chi to the mask, ``free`` does not, ``auto`` is ``free`` where
        `LocalField.harmonic_removed` says so; see `TV`.
    weak_harmonic
        :math:`\beta` in mm^4 of the residual background h; 0 has none.
    constant
        Whether c is free; without, 0.
    max_iterations, tolerance
        Stop when the change of chi in the mask, relative, is below ``tolerance``; at most this
        often.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.
    second_order
        :math:`\ell` in mm.
    nonlinear
        Whether further iterations, at most as many again, have the data term of `NonlinearTV`. It
        needs `LocalField.radians_per_ppm`, without which `Susceptibility.flags` says that the term
        was linear.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    second_order: float = 1.0
    nonlinear: bool = False

    summary: ClassVar[Summary] = Summary(
        cost="5 FFT pairs an iteration, 20 to 40 iterations; 6 with weak_harmonic",
        use="Where chi varies smoothly and TV would make steps; elsewhere as TV.",
        reference="Langkammer et al. 2015, 10.1016/j.neuroimage.2015.02.041",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.second_order < math.inf:
            raise ValueError(f"second_order must be positive, got {self.second_order}")

    def _prior(self, data: DataTerm, local: LocalField, strength: float) -> Prior:  # noqa: ARG002
        return GeneralisedVariation(data, strength, strength * self.second_order)

    def _solve(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Tensor:
        linear = Quadratic(data, self.constant)
        solver = self._solver(data, local, linear, self.weight_of_gradient(local), start)
        solver.run(self.max_iterations, self.tolerance)
        if self.nonlinear and local.radians_per_ppm is not None:
            solver.fidelity = term = Nonlinear(data, local.radians_per_ppm, self.constant)
            term.follow(linear)
            solver.run(self.max_iterations, self.tolerance)
        return solver.chi

    def _flags(self, local: LocalField) -> tuple[str, ...]:
        return (LINEAR,) if self.nonlinear and local.radians_per_ppm is None else ()
