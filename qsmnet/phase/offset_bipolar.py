"""Phase offset of echoes that are read to and fro."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.phase.offset_mcpc3ds import Mcpc3ds
from qsmnet.phase.scale import wrap
from qsmnet.phase.smooth import smooth_phase
from qsmnet.phase.unwrap_romeo import RomeoUnwrap
from qsmnet.summary import Summary
from qsmnet.volumes import Scan

# how far, relative to a gap, the echo times may be from even
_EVEN = 0.02


@dataclass(frozen=True)
class BipolarOffset:
    r"""Phase that alternates from echo to echo, then MCPC-3D-S.

    Echoes that are read in turns from left to right and from right to left differ by a phase G,
    roughly linear along the readout (Li et al. 2015, 10.1002/mrm.25138). For even echo times

    .. math:: 2G = \angle\, K * \sum_e s_e, \qquad
       s_e = S_e^2\, \bar S_{e-1}\, \bar S_{e+1}\ (e\ \mathrm{even}),
       \quad \bar S_e^2\, S_{e-1}\, S_{e+1}\ (e\ \mathrm{odd})

    with a Gaussian K, since field and offset cancel in every three echoes in a row. 2G is unwrapped
    in space; half of it is taken from the even echoes and given to the odd
    ones. Differs from ROMEO's correction (Eckstein, MriResearchTools), which uses the first three
    echoes: all are used here, but the times must be even. A constant of pi in G cannot be told from
    a constant field and is chosen so that G is nearest to zero on average.

    Parameters
    ----------
    width
        Standard deviation of the Gaussian in mm, of both steps.
    passes
        How often it is applied.

    Raises
    ------
    ValueError
        As `Mcpc3ds`.
    """

    width: float = 10.0
    passes: int = 20

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; two spanning trees",
        use="Three echoes and more, evenly spaced, read in alternating directions.",
        reference="Li et al. 2015, 10.1002/mrm.25138",
    )

    def __post_init__(self) -> None:
        _ = self._monopolar

    @property
    def _monopolar(self) -> Mcpc3ds:
        return Mcpc3ds(self.width, self.passes)

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Scan:
        """Scan without what alternates and without its phase offset.

        Raises
        ------
        InconsistentError
            If there are fewer than three echoes or they are not evenly spaced.
        """
        _check_even(scan.echo_times)
        half = 0.5 * self._alternating(scan, mask)
        signs = torch.tensor([(-1.0) ** echo for echo in range(len(scan.echo_times))])
        phase = wrap(scan.wrapped_phase + signs.view(-1, 1, 1, 1) * half)
        return self._monopolar(replace(scan, wrapped_phase=phase), mask)

    def _alternating(self, scan: Scan, mask: Tensor) -> Float[Tensor, "x y z"]:
        """Phase in rad of the even echoes less that of the odd ones."""
        twice, weight = _second_difference(scan)
        smooth = smooth_phase(twice, weight * mask, self.width, scan.geometry, self.passes)
        only = replace(
            scan,
            wrapped_phase=wrap(smooth)[None],
            magnitude=torch.ones_like(smooth)[None],
            echo_times=scan.echo_times[:1],
        )
        unwrapped = RomeoUnwrap()(only, mask)[0]
        median = unwrapped[mask].median()
        turns = 2 * math.pi * torch.round(median / (2 * math.pi))
        return torch.where(mask, unwrapped - turns, 0.0) / 2


def _second_difference(scan: Scan) -> tuple[Tensor, Tensor]:
    """Twice the alternating phase, wrapped, and its weight: every three echoes in a row."""
    total = torch.zeros(scan.magnitude.shape[1:], dtype=torch.complex64)
    size = scan.magnitude / scan.magnitude.amax().clamp_min(1e-30)
    phase = scan.wrapped_phase
    for middle in range(1, len(scan.echo_times) - 1):
        bend = 2 * phase[middle] - phase[middle - 1] - phase[middle + 1]
        trusted = size[middle] * torch.minimum(size[middle - 1], size[middle + 1])
        total += torch.polar(trusted, bend if middle % 2 else -bend)
    return total.angle(), total.abs().sqrt()


def _check_even(echo_times: tuple[float, ...]) -> None:
    gaps = [later - earlier for earlier, later in pairwise(echo_times)]
    if len(gaps) < 2 or max(gaps) - min(gaps) > _EVEN * gaps[0]:
        raise InconsistentError(
            "echo times",
            f"{', '.join(f'{time:g}' for time in echo_times)} s: what alternates shows in three or"
            " more evenly spaced echoes",
            "use --offset mcpc3ds for echoes read in one direction, --offset none otherwise",
        )
