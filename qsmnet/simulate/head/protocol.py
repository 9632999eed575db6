"""How a head is scanned: grid, field and a spoiled gradient-echo sequence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qsmnet.geometry import Geometry
from qsmnet.simulate.grid import Grid


@dataclass(frozen=True)
class Protocol:
    """A multi-echo spoiled gradient-echo sequence.

    Parameters
    ----------
    shape
        Voxels along x (right), y (anterior), z (superior) of the head.
    voxel_size
        In mm.
    b0
        Main field in T.
    b0_dir
        Direction of B0 in voxel axes: the head lies tilted in the scanner where it is not z.
    echo_times
        In s, increasing.
    repetition_time
        In s.
    flip_angle
        In degrees.
    snr
        99th percentile of the first echo's noise-free magnitude in the brain over the standard
        deviation of the noise of real and imaginary part; None is no noise.

    Raises
    ------
    ValueError
        If a number is out of its range or the echo times do not increase below the repetition time.
    """

    shape: Sequence[int]
    voxel_size: Sequence[float]
    b0: float
    echo_times: Sequence[float]
    repetition_time: float
    flip_angle: float
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0)
    snr: float | None = 100.0

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 8:
            raise ValueError(f"shape needs three sizes of at least 8, got {tuple(self.shape)}")
        if not self.echo_times or any(b <= a for a, b in pairwise([0.0, *self.echo_times])):
            raise ValueError(f"echo times must be positive and increase, got {self.echo_times}")
        if self.repetition_time <= self.echo_times[-1]:
            raise ValueError("repetition_time must be longer than the last echo time")
        if not 0 < self.flip_angle <= 90 or self.b0 <= 0:
            raise ValueError("flip_angle is 0 to 90 degrees and b0 positive")
        if self.snr is not None and self.snr <= 0:
            raise ValueError(f"snr must be positive, or null for no noise, got {self.snr}")

    @property
    def geometry(self) -> Geometry:
        """Voxel size and B0 direction."""
        x, y, z = (float(d) for d in self.voxel_size)
        bx, by, bz = (float(b) for b in self.b0_dir)
        return Geometry((x, y, z), (bx, by, bz))

    @property
    def grid(self) -> Grid:
        """Grid of the scan, its middle at the origin."""
        x, y, z = (int(n) for n in self.shape)
        return Grid((x, y, z), self.geometry.voxel_size)

    def steady_state(self, r1: float) -> float:
        r"""Signal at TE = 0 of a spin density of one with relaxation rate ``r1`` (1/s).

        :math:`\sin\alpha\,(1 - E_1) / (1 - E_1\cos\alpha)`, :math:`E_1 = e^{-TR\,R_1}` (Ernst &
        Anderson 1966, 10.1063/1.1719961).
        """
        angle, e1 = math.radians(self.flip_angle), math.exp(-self.repetition_time * r1)
        return math.sin(angle) * (1 - e1) / (1 - e1 * math.cos(angle))
