"""Total variation by ADMM, with the field known in part of the grid only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from qsmnet.inversion.fidelity import Fidelity, Filled, Quadratic, Zeros
from qsmnet.inversion.unknown_field import DataTerm
from qsmnet.inversion.variational import Variational
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField

Outside = Literal["weight", "fill", "zero"]


@dataclass(frozen=True)
class TV(Variational):
    r"""Weighted total variation.

    TV with ADMM follows Bilgic et al. 2014 (10.1002/mrm.25029), the weights Milovic et al. 2018
    (10.1002/mrm.27073), the residual background Milovic et al. 2019 (10.1002/mrm.27483).

    .. math:: \min_{\chi, c, h}\ \tfrac12 \sum W (D\chi + c + h - b)^2
       + \lambda \sum_{i} \sum_{edges} |\partial_i \chi|
       + \tfrac{\beta}{2} \sum_{mask} (\nabla^2 h)^2, \qquad \chi = 0 \text{ off the mask}

    W is `LocalField.data_weight` over its mean where the field is known, zero where it is not; c is
    a free constant (k = 0 is not in the data); h is there if ``weak_harmonic`` is above 0;
    derivatives are forward differences over the voxel edge in mm. Differs from common codes: the
    field outside the mask is unknown instead of zero, chi is confined to the mask, the step at the
    mask's surface is not penalised (chi there is relative to nothing), FFTs are real and padded.

    **Scaling of** :math:`\lambda`. Its unit is ppm mm. A field times s with :math:`\lambda` times s
    gives chi times s. Both sums run over voxels and derivatives are per mm, so that the same object
    on a finer grid keeps the same :math:`\lambda`. Noise of standard deviation sd wants a
    :math:`\lambda` that grows with it: :math:`\lambda` = ``regularisation`` + ``noise_gain`` sd,
    with :math:`1/sd^2` averaged where sd is a map.

    Parameters
    ----------
    regularisation
        :math:`\lambda` of a noise-free field, in ppm mm; covers what the model cannot explain.
    noise_gain
        Growth of :math:`\lambda` with the noise of the field, in mm. Best :math:`\lambda` measured
        on heads of two kinds: 2e-5 to 5e-5, 6e-5 to 9e-5, 1.2e-4, 3.5e-4 and 8e-4 ppm mm at sd 0,
        0.001, 0.002, 0.005 and 0.01 ppm.
    support
        ``mask`` confines chi to the mask: right for the field of the sources in the mask. ``free``
        leaves chi outside to take up any field that sources outside could make: right after a
        background removal that took such fields, the brain's own too, out of the data. ``auto``
        is ``free`` where `LocalField.harmonic_removed` says so, else ``mask``.
    weak_harmonic
        :math:`\beta` in mm^4: how much the residual background h costs where it is not harmonic.
        0 has none, 100 takes up smooth backgrounds. Susceptibility whose field is harmonic in the
        mask is lost with them: on a head of 2 mm that had no background the error doubled, with one
        of 0.4 and 1.7 times the spread of the local field it fell from 76 and 300 % to 34 and 46 %.
    constant
        Whether c is free; without, 0.
    outside
        The field where it is unknown. ``weight``: weight zero, by the splitting y = D chi.
        ``fill``: the model's own field, b <- W b + (1 - W) D chi, with chi as the solver has it,
        unmasked: the same minimum, in twice the iterations, in ten times as many where the noise
        varies much. ``zero``: zeros taken as data, weights, support and constant ignored; the
        common and worse choice, half the FFTs, kept for comparison.
    max_iterations, tolerance
        Stop when the change of chi in the mask, relative, is below ``tolerance``; at most this
        often.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.

    Raises
    ------
    ValueError
        If a parameter is out of range, or ``weak_harmonic`` is not 0 with an ``outside`` other than
        ``weight``.
    """

    outside: Outside = "weight"

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 20 to 40 iterations; 3 with weak_harmonic",
        use="The classical choice, where the field is right within its noise: edges kept.",
        reference="Bilgic et al. 2014, 10.1002/mrm.25029; Milovic et al. 2018, 10.1002/mrm.27073",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outside not in ("weight", "fill", "zero"):
            raise ValueError(f"outside is 'weight', 'fill' or 'zero', got {self.outside!r}")
        if self.weak_harmonic and self.outside != "weight":
            raise ValueError("weak_harmonic needs outside='weight'")

    def _solve(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Tensor:
        strength = self.weight_of_gradient(local)
        solver = self._solver(data, local, self._fidelity(data), strength, start)
        solver.run(self.max_iterations, self.tolerance)
        return solver.chi

    def _fidelity(self, data: DataTerm) -> Fidelity:
        if self.outside == "zero":
            return Zeros(data)
        kind = Filled if self.outside == "fill" else Quadratic
        return kind(data, self.constant)
