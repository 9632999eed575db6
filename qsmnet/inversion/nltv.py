"""Total variation with the data term of the phase itself."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsmnet.inversion.fidelity import Nonlinear, Quadratic
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.inversion.variational import LINEAR, Variational
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField


@dataclass(frozen=True)
class NonlinearTV(Variational):
    r"""Nonlinear total variation, "FANSI" (Milovic et al. 2018, 10.1002/mrm.27073).

    .. math:: \min_{\chi, c, h}\ \tfrac{1}{2 s^2} \sum W
       \left| e^{i s (D\chi + c + h)} - e^{i s b} \right|^2
       + \lambda \sum_{i} \sum_{edges} |\partial_i \chi|
       + \tfrac{\beta}{2} \sum_{mask} (\nabla^2 h)^2, \qquad \chi = 0 \text{ off the mask}

    s is `LocalField.radians_per_ppm`, the phase that 1 ppm makes at the longest echo; the rest is
    as in `TV`, of which this is the limit of small phase: the division by :math:`s^2` is what keeps
    :math:`\lambda`. A voxel whose phase is off by half a turn and more pulls at chi no harder, and
    one that is off by whole turns not at all. Without s the data term is quadratic, and
    `Susceptibility.flags` says so.

    Differs from the paper: real padded FFTs, over-relaxation, noise weights that are zero where the
    field is unknown, chi confined to the mask; the first ``linear_iterations`` are those of `TV`,
    because the term is not convex and from chi = 0 a strong source would be taken for whole turns.
    Per voxel the proximal step is Newton's, from the nearest whole turn, from where it cannot
    overshoot. Two FFT pairs an iteration where the paper's code takes eleven transforms.

    **Scaling of** :math:`\lambda`. As in `TV`, ppm mm, and it moves with neither echo time nor
    field strength. A field times a with :math:`\lambda` times a and s over a gives chi times a.

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
        often, the linear ones not counted.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.
    linear_iterations
        Iterations with the quadratic term before, at most.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    linear_iterations: int = 30

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 30 to 70 iterations; 3 with weak_harmonic",
        use="As TV, where the phase has wrapped or noisy voxels near strong sources.",
        reference="Milovic et al. 2018, 10.1002/mrm.27073",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.linear_iterations < 1:
            raise ValueError(f"linear_iterations is at least 1, got {self.linear_iterations}")

    def _solve(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Tensor:
        linear = Quadratic(data, self.constant)
        solver = self._solver(data, local, linear, self.weight_of_gradient(local), start)
        scale = local.radians_per_ppm
        if scale is None:
            solver.run(self.max_iterations, self.tolerance)
            return solver.chi
        solver.run(self.linear_iterations, self.tolerance)
        solver.fidelity = term = Nonlinear(data, scale, self.constant)
        term.follow(linear)
        solver.run(self.max_iterations, self.tolerance)
        return solver.chi

    def _flags(self, local: LocalField) -> tuple[str, ...]:
        return (LINEAR,) if local.radians_per_ppm is None else ()
