"""A simulated scan of a head with the truth of every stage."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qsmnet.geometry import Geometry
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.simulate.phantom import Record
from qsmnet.volumes import Scan


@dataclass(frozen=True)
class HeadScan:
    """Echoes, and what they were made of, on one grid.

    Parameters
    ----------
    phase
        ``(echo, x, y, z)``, wrapped, in rad, with noise.
    magnitude
        ``(echo, x, y, z)``, with noise.
    chi
        In ppm relative to water. In ``mask`` the mean over each voxel of what makes
        ``local_field``, of the brain alone; elsewhere of all, air and bone too.
    mask
        The brain, its fluid included.
    segmentation
        Labels of `qsmnet.simulate.tissue`, at the middle of each voxel.
    total_field
        In ppm, after shimming: mean over each voxel.
    local_field
        In ppm: the field of chi inside ``mask``, mean over each voxel.
    r2star
        In 1/s, mean over each voxel weighted by signal.
    phase_offset
        Phase at TE = 0 in rad.
    unwrapped_phase
        ``(echo, x, y, z)`` in rad, without noise.
    noise
        Standard deviation in ppm of the field that a weighted line through the echoes finds, to
        first order.
    signal_noise
        Standard deviation of real and imaginary part, in the unit of ``magnitude``.
    protocol
        How it was scanned.
    record
        Plain JSON from which the same scan is made.
    """

    phase: Float[Tensor, "echo x y z"]
    magnitude: Float[Tensor, "echo x y z"]
    chi: Float[Tensor, "x y z"]
    mask: Bool[Tensor, "x y z"]
    segmentation: UInt8[Tensor, "x y z"]
    total_field: Float[Tensor, "x y z"]
    local_field: Float[Tensor, "x y z"]
    r2star: Float[Tensor, "x y z"]
    phase_offset: Float[Tensor, "x y z"]
    unwrapped_phase: Float[Tensor, "echo x y z"]
    noise: Float[Tensor, "x y z"]
    signal_noise: float
    protocol: Protocol
    record: Record

    @property
    def geometry(self) -> Geometry:
        """Voxel size and B0 direction."""
        return self.protocol.geometry

    def as_scan(self) -> Scan:
        """Return what a reconstruction is given: never the truth."""
        return Scan(
            self.phase,
            self.magnitude,
            tuple(self.protocol.echo_times),
            self.protocol.b0,
            self.geometry,
        )
