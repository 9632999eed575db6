"""Phase offset from the first two echoes."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.phase.align import turns
from qsmnet.phase.echoes import difference_and_first, join_parts
from qsmnet.phase.scale import wrap
from qsmnet.phase.smooth import smooth_phase
from qsmnet.phase.unwrap_romeo import RomeoUnwrap
from qsmnet.summary import Summary
from qsmnet.volumes import Scan


@dataclass(frozen=True)
class Mcpc3ds:
    r"""MCPC-3D-S (Eckstein et al. 2018, 10.1002/mrm.26963) for coils that were combined already.

    .. math:: \phi_0 = \angle\, G * w\, e^{i(\phi_1 - \theta\,TE_1 / (TE_2 - TE_1))}, \qquad
       \theta = \mathrm{unwrap}\, \angle\, S_2 \bar S_1, \qquad
       w^{-2} = \frac{(1 + r)^2}{m_1^2} + \frac{r^2}{m_2^2}, \quad r = \frac{TE_1}{TE_2 - TE_1}

    The offset is taken from all echoes; what is left is proportional to the echo time, up to a
    multiple of 2 pi in theta, which is a constant field. Differs from MriResearchTools: theta is
    unwrapped by `qsmnet.phase.unwrap_romeo.RomeoUnwrap`; the width is in mm; smoothing weights each
    voxel by one over the standard deviation of its offset; and it is repeated on what it left over,
    without outliers (`qsmnet.phase.smooth.smooth_phase`). One Gaussian of 7 mm errs by 0.09 rad
    (root mean square over a simulated brain), most at the rim; 20 passes of 10 mm, which keep what
    one of about 4 mm keeps, by 0.01 rad. For echoes that are read in one direction:
    `qsmnet.phase.offset_bipolar.BipolarOffset` is for others. One echo is returned as it is.

    Parameters
    ----------
    width
        Standard deviation of the Gaussian in mm.
    passes
        How often it is applied.

    Raises
    ------
    ValueError
        If ``width`` is not positive or ``passes`` below 1.
    """

    width: float = 10.0
    passes: int = 20

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; one spanning tree",
        use="The default for two echoes and more, read in one direction.",
        reference="Eckstein et al. 2018, 10.1002/mrm.26963",
    )

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise ValueError(f"width must be positive, got {self.width}")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Scan:
        """Scan without its phase offset, of two echoes and more."""
        if len(scan.echo_times) == 1 or scan.offset_removed:
            return scan
        evolved = evolved_phase(difference_and_first(scan), scan.echo_times[0], mask)
        offset = smooth_phase(
            scan.wrapped_phase[0] - evolved,
            offset_weight(scan.magnitude[0], scan.magnitude[1], scan.echo_times) * mask,
            self.width,
            scan.geometry,
            self.passes,
        )
        return replace(scan, wrapped_phase=wrap(scan.wrapped_phase - offset), offset_removed=True)


def evolved_phase(
    difference: Scan, first: float, mask: Bool[Tensor, "x y z"]
) -> Float[Tensor, "x y z"]:
    """Phase in rad that the field made until the first echo.

    Parameters
    ----------
    difference
        Its first echo is the difference of two, at the time between them; more help to unwrap it.
    first
        Time of the first echo in s.
    """
    (theta,) = join_parts(RomeoUnwrap()(difference, mask, count=1), mask)
    evolved: Tensor = theta - turns(theta[mask].median())
    return evolved * (first / difference.echo_times[0])


def offset_weight(
    first: Float[Tensor, "*coil x y z"],
    second: Float[Tensor, "*coil x y z"],
    echo_times: tuple[float, ...],
) -> Float[Tensor, "*coil x y z"]:
    """One over the standard deviation of the offset, up to the noise: from two magnitudes."""
    ratio = echo_times[0] / (echo_times[1] - echo_times[0])
    strong = torch.maximum(first, second).amax((-3, -2, -1), keepdim=True).clamp_min(1e-30)
    floor = 1e-6 * strong
    one, two = first.clamp_min(floor) / strong, second.clamp_min(floor) / strong
    return (((1 + ratio) / one) ** 2 + (ratio / two) ** 2).rsqrt()
