"""Echoes of many coils to one scan."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.geometry import Geometry
from qsmnet.phase.offset_mcpc3ds import Mcpc3ds, evolved_phase, offset_weight
from qsmnet.phase.smooth import smooth_phase
from qsmnet.volumes import Scan


@dataclass(frozen=True, slots=True)
class CoilScan:
    """A multi-echo scan before its coils were combined.

    Parameters
    ----------
    wrapped_phase
        ``(coil, echo, x, y, z)`` in rad, any multiple of 2 pi missing.
    magnitude
        ``(coil, echo, x, y, z)``, arbitrary unit, the same noise in every coil.
    echo_times, b0, geometry
        As of a `Scan`.
    """

    wrapped_phase: Float[Tensor, "coil echo x y z"]
    magnitude: Float[Tensor, "coil echo x y z"]
    echo_times: tuple[float, ...]
    b0: float
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.wrapped_phase.shape != self.magnitude.shape:
            raise ValueError(
                f"shapes disagree: {tuple(self.wrapped_phase.shape)} of phase and"
                f" {tuple(self.magnitude.shape)} of magnitude"
            )
        if len(self.echo_times) != self.wrapped_phase.shape[1]:
            raise ValueError(
                f"{len(self.echo_times)} echo times for {self.wrapped_phase.shape[1]} echoes"
            )

    @property
    def sum_of_squares(self) -> Float[Tensor, "echo x y z"]:
        """Root sum of squares over the coils: what a mask is made of."""
        return self.magnitude.square().sum(0).sqrt()


@dataclass(frozen=True)
class CoilCombination:
    r"""MCPC-3D-S (Eckstein et al. 2018, 10.1002/mrm.26963): each coil's phase offset, removed.

    .. math:: \theta = \mathrm{unwrap}\, \angle \sum_c S_{2c} \bar S_{1c}, \qquad
       \phi_{0c} = \angle\, G * w_c\, e^{i(\phi_{1c} - \theta\,TE_1 / (TE_2 - TE_1))}, \qquad
       S_e = \frac{\sum_c |S_{1c}|\, S_{ec}\, e^{-i\phi_{0c}}}{\sqrt{\sum_c |S_{1c}|^2}}

    theta is common to all coils; the weights :math:`|S_{1c}|` make the signal-to-noise ratio of the
    sum the best there is, with white noise of the same strength in every coil. Smoothing is that
    of `qsmnet.phase.offset_mcpc3ds.Mcpc3ds`.

    Parameters
    ----------
    width
        Standard deviation of the Gaussian in mm.
    passes
        How often it is applied.

    Raises
    ------
    ValueError
        As `Mcpc3ds`.
    """

    width: float = 10.0
    passes: int = 20

    def __post_init__(self) -> None:
        Mcpc3ds(self.width, self.passes)

    def __call__(self, coils: CoilScan, mask: Bool[Tensor, "x y z"], /) -> Scan:
        """One scan, its phase offset removed where ``mask`` is true, and nearby.

        Raises
        ------
        InconsistentError
            If there is one echo.
        """
        if len(coils.echo_times) < 2:
            raise InconsistentError(
                "coils", "one echo tells no phase offset", "give two or more echoes"
            )
        first, second = coils.magnitude[:, 0], coils.magnitude[:, 1]
        evolved = evolved_phase(_hermitian_product(coils), coils.echo_times[0], mask)
        weights = offset_weight(first, second, coils.echo_times) * mask
        sensitivity = first / first.square().sum(0).sqrt().clamp_min(1e-30)
        total = torch.zeros(coils.magnitude.shape[1:], dtype=torch.complex64)
        for coil, weight in enumerate(weights):
            left = coils.wrapped_phase[coil, 0] - evolved
            offset = smooth_phase(left, weight, self.width, coils.geometry, self.passes)
            total += torch.polar(
                sensitivity[coil] * coils.magnitude[coil], coils.wrapped_phase[coil] - offset
            )
        return Scan(total.angle(), total.abs(), coils.echo_times, coils.b0, coils.geometry, True)


def _hermitian_product(coils: CoilScan) -> Scan:
    """Difference of the first two echoes as if it were an echo, summed over the coils."""
    size, phase = coils.magnitude, coils.wrapped_phase
    product = torch.polar(size[:, 0] * size[:, 1], phase[:, 1] - phase[:, 0]).sum(0)
    return Scan(
        wrapped_phase=product.angle()[None],
        magnitude=product.abs().sqrt()[None],
        echo_times=(coils.echo_times[1] - coils.echo_times[0],),
        b0=coils.b0,
        geometry=coils.geometry,
    )
