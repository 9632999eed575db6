"""The field as the slope of a weighted line through the echoes."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.phase.echoes import fit_field
from qsmnet.summary import Summary
from qsmnet.volumes import Scan, TotalField


@dataclass(frozen=True)
class LineFit:
    r"""Least squares line through the unwrapped phase, in closed form.

    .. math:: \min_{f, p} \sum_e w_e (\phi_e - 2\pi f\,TE_e - p)^2, \qquad
       w_e = m_e^2 \left(\frac{m_e}{\max_e m_e}\right)^d

    with p = 0 where the phase offset was removed (or of one echo). For d = 0 the weights are those
    of the noise (Gudbjartsson & Patz 1995, 10.1002/mrm.1910340618), as in most codes. Where a voxel
    holds a gradient of the field, its signal dephases, and its phase leaves the line as its
    magnitude falls: that is no noise, and m squared gives it too much credit. A higher d trusts
    such echoes less, at the cost of noise where the signal decays as tissue does: 3 % for d = 2 at
    3 T and echoes up to 29 ms. The noise that is returned is that of the weights in use.

    Parameters
    ----------
    dephasing
        d, no unit.

    Raises
    ------
    ValueError
        If ``dephasing`` is negative.
    """

    dephasing: float = 2.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT",
        use="The default: closed form, least noise once the echoes are unwrapped.",
        reference="Gudbjartsson & Patz 1995, 10.1002/mrm.1910340618",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.dephasing < math.inf:
            raise ValueError(f"dephasing must be 0 or more, got {self.dephasing}")

    def __call__(
        self, scan: Scan, unwrapped: Float[Tensor, "echo x y z"], mask: Bool[Tensor, "x y z"], /
    ) -> TotalField:
        """Field and the standard deviation of its noise in ppm, zero outside the mask."""
        return fit_field(scan, unwrapped, mask, self.dephasing)
