r"""Tikhonov regularisation in closed form."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsmnet.dipole import Dipole, Kernel, check_padding
from qsmnet.inversion.closed_form import invert_in_kspace
from qsmnet.inversion.inverter import Input
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, Susceptibility


@dataclass(frozen=True)
class Tikhonov:
    r"""Least squares with a penalty on the size of chi.

    .. math:: \hat\chi = F^{-1} \frac{D}{D^2 + \lambda} F b
       = \arg\min_\chi \sum (D\chi - b)^2 + \lambda \sum \chi^2

    Kressler et al. 2010 (10.1109/TMI.2009.2023787); one FFT pair. Differs from the iterative form:
    the field is taken as zero where it is unknown and every voxel weighs the same, which is what
    makes it closed.

    **Scaling of** :math:`\lambda`. D is ppm of field a ppm of chi, so that :math:`\lambda` has no
    unit: it moves neither with the field's unit nor, at k in 1/mm, with the voxel size. For white
    noise and white chi the best one is the ratio of their variances, :math:`\lambda = sd_b^2 /
    sd_\chi^2`: doubling the noise quadruples it.

    Parameters
    ----------
    regularisation
        :math:`\lambda`, positive.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Zero padding factor of the FFT grid, up to 8; 1 only rounds up to a fast size.

    Raises
    ------
    ValueError
        If ``regularisation`` is not positive and finite, or the padding outside [1, 8].
    """

    regularisation: float = 0.005
    kernel: Kernel = "sampled"
    padding: float = 1.0

    takes: ClassVar[Input] = "local_field"
    #: For `Automatic`; measured on heads.
    kappa_target: ClassVar[float] = 0.5
    summary: ClassVar[Summary] = Summary(
        cost="1 FFT pair",
        use="A smoother preview; a start for others.",
        reference="Kressler et al. 2010, 10.1109/TMI.2009.2023787",
    )

    def __post_init__(self) -> None:
        if not 0 < self.regularisation < math.inf:
            raise ValueError(f"regularisation must be positive, got {self.regularisation}")
        check_padding(self.padding)

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Invert; the field is taken as zero where it is unknown."""
        return invert_in_kspace(local, self._inverse, self.kernel, self.padding)

    def _inverse(self, dipole: Dipole) -> Tensor:
        return dipole.spectrum / (dipole.spectrum**2 + self.regularisation)
