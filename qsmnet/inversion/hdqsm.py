"""Absolute data term first, then least squares with weights from its residual."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from qsmnet.inversion.fidelity import Quadratic
from qsmnet.inversion.l1 import L1
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.inversion.variational import Variational
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField


@dataclass(frozen=True)
class HDQSM(Variational):
    r"""Hybrid data fidelity, "HD-QSM" (Lambert et al. 2022, 10.1002/mrm.29218).

    .. math:: \chi_1 = \arg\min \sum \sqrt W |D\chi + c + h - b| + \lambda_1 TV(\chi), \qquad
       \chi = \arg\min \tfrac12 \sum W g (D\chi + c + h - b)^2 + \lambda TV(\chi), \qquad
       g = \left(1 + (r / r_q)^2\right)^{-2}

    with r the weighted residual :math:`\sqrt W |D\chi_1 + c - b|` of the first stage,
    :math:`r_q` its quantile ``quantile``, TV, W, c, h and the mask as in `TV`. The first stage does
    not follow outliers, the second keeps its weights and takes back its bias.

    Differs from the paper: :math:`g = (1 - r / \max r)^2` there hangs on the worst voxel of the
    volume, so that one voxel far off leaves all the others as they were; :math:`\lambda_1` is
    :math:`\sqrt\lambda` there, which moves with the unit of the field; weights are of the noise and
    zero where the field is unknown; chi is confined to the mask; the first stage starts from 20
    iterations of `TV`; FFTs are real and padded.

    **Scaling of** :math:`\lambda`. As in `TV`, ppm mm; :math:`\lambda_1` is in mm and goes with
    neither field nor noise. W g is divided by its mean where the field is known, as W is in `TV`.

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
        Of the second stage: stop when the change of chi in the mask, relative, is below
        ``tolerance``; at most this often.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.
    first_regularisation
        :math:`\lambda_1` in mm. Of 0.06, 0.1, 0.2 and 0.4, with quantiles of 0.99 to 1, the default
        did best on four heads of 2 mm, mean NRMSE with the true field and its noise and with the
        field of the echoes: 25.1 and 44.3 %, where `TV` has 23.9 and 59.7 %.
    first_iterations
        Of the first stage, at most, its start not counted.
    quantile
        Share of the voxels whose residual is below :math:`r_q`, in (0, 1].

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    first_regularisation: float = 0.06
    first_iterations: int = 20
    quantile: float = 0.99

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 50 to 70 iterations; 3 with weak_harmonic",
        use="The default: where some of a measured field is wrong beyond its noise, as near air.",
        reference="Lambert et al. 2022, 10.1002/mrm.29218",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile must lie in (0, 1], got {self.quantile}")
        _ = self._first  # its parameters are checked now

    @property
    def _first(self) -> L1:
        return L1(
            regularisation=self.first_regularisation,
            noise_gain=0.0,
            support=self.support,
            weak_harmonic=self.weak_harmonic,
            constant=self.constant,
            max_iterations=self.first_iterations,
            tolerance=self.tolerance,
            nonlinear=False,
        )

    def _solve(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Tensor:
        first = self._first.solved(data, local, start)
        trusted = replace(data, weight=data.weight * self._trust(data, first.residual()))
        strength = self.weight_of_gradient(local)
        solver = self._solver(
            trusted, local, Quadratic(trusted, self.constant), strength, first.chi
        )
        solver.run(self.max_iterations, self.tolerance)
        return solver.chi

    def _trust(self, data: DataTerm, residual: Tensor) -> Tensor:
        size = residual.abs().mul_(data.weight.sqrt())
        known = size[data.weight > 0]
        rank = max(1, round(self.quantile * known.numel()))
        bound = known.kthvalue(rank).values.clamp_min(torch.finfo(size.dtype).tiny)
        return (1 + (size / bound) ** 2) ** -2
