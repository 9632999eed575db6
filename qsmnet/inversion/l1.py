"""Total variation with an absolute data term: outliers count by their size, not its square."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsmnet.inversion.admm import Solver
from qsmnet.inversion.fidelity import Absolute, Quadratic
from qsmnet.inversion.unknown_field import DataTerm, noise_of_weighted
from qsmnet.inversion.variational import LINEAR, Variational
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField

_START_ITERATIONS = 20
_LEAST_RESIDUAL = 0.03  # of the field's spread: what a model explains no better


@dataclass(frozen=True)
class L1(Variational):
    r"""L1-QSM (Milovic et al. 2022, 10.1002/mrm.28957).

    .. math:: \min_{\chi, c, h}\ \tfrac1s \sum \sqrt W
       \left| e^{i s (D\chi + c + h)} - e^{i s b} \right|
       + \lambda \sum_{i} \sum_{edges} |\partial_i \chi|
       + \tfrac{\beta}{2} \sum_{mask} (\nabla^2 h)^2, \qquad \chi = 0 \text{ off the mask}

    s is `LocalField.radians_per_ppm`; :math:`\sqrt W`, one over the noise, is divided by its mean
    where the field is known; the rest is as in `TV`. With ``nonlinear`` false, or without s, the
    data term is :math:`\sum \sqrt W |D\chi + c + h - b|`, its limit for small phase; where s is
    missing `Susceptibility.flags` says so.

    Differs from the paper: noise weights that are zero where the field is unknown, chi confined to
    the mask, real padded FFTs, over-relaxation, one splitting of the field instead of two, and a
    start from 20 iterations of `TV`: the term bounds the force of a voxel, so that from chi = 0
    strong sources come out in hundreds of iterations, and is not convex.

    **Scaling of** :math:`\lambda`. Both terms are of degree one, so that :math:`\lambda` is in mm
    and chi goes with the field by itself: a field times a, with noise times a and s over a, gives
    chi times a at the same ``regularisation``, with ``noise_gain`` over a. A finer grid keeps
    :math:`\lambda`.

    Parameters
    ----------
    regularisation
        :math:`\lambda` of a noise-free field, in mm.
    noise_gain
        Growth of :math:`\lambda` with the noise of the field, in mm/ppm. Best :math:`\lambda` of
        0.03, 0.06, 0.1, 0.2 and 0.3 mm on two heads at sd 0.00025, 0.0012 and 0.0036 ppm: 0.03 to
        0.06, 0.05 to 0.1, 0.06 to 0.1.
    support
        ``mask`` confines chi to the mask, ``free`` does not, ``auto`` is ``free`` where
        `LocalField.harmonic_removed` says so; see `TV`.
    weak_harmonic
        :math:`\beta` in mm^4 of the residual background h, beside a quadratic term that pulls as
        hard at 6 % of the field's spread; 0 has none.
    constant
        Whether c is free; without, 0.
    max_iterations, tolerance
        Stop when the change of chi in the mask, relative, is below ``tolerance``; at most this
        often, the start not counted.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.
    nonlinear
        Whether the data term is that of the phase.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    regularisation: float = 0.06
    noise_gain: float = 10.0
    nonlinear: bool = True

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 40 to 60 iterations; 3 with weak_harmonic",
        use="Where some of the field is plainly wrong and nobody knows which part.",
        reference="Milovic et al. 2022, 10.1002/mrm.28957",
    )

    def solved(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Solver:
        """Return the solver at its end."""
        strength = self.weight_of_gradient(local)
        residual = noise_of_weighted(local) + _LEAST_RESIDUAL * data.scale()
        linear = Quadratic(data, self.constant)
        first = self._solver(data, local, linear, strength * residual, start)
        first.run(_START_ITERATIONS, self.tolerance)
        scale = local.radians_per_ppm if self.nonlinear else None
        absolute = Absolute(data, scale, self.constant)
        absolute.follow(linear)
        solver = self._solver(data, local, absolute, strength, first.chi)
        solver.run(self.max_iterations, self.tolerance)
        return solver

    def _solve(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Tensor:
        return self.solved(data, local, start).chi

    def _flags(self, local: LocalField) -> tuple[str, ...]:
        return (LINEAR,) if self.nonlinear and local.radians_per_ppm is None else ()
