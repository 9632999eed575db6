"""A U-Net that corrects a classical map, seeing truncated division at several thresholds."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from qsmnet.dipole import Kernel, check_padding
from qsmnet.geometry import Geometry
from qsmnet.networks.classical import Start, check_start, classical_map, truncated_division
from qsmnet.networks.problem import (
    Problem,
    Scale,
    Volume,
    check_scale,
    check_switch,
    relative_magnitude,
)
from qsmnet.networks.small_unet import SmallUNet
from qsmnet.summary import Summary


class ClassicalResidual(nn.Module):
    r"""Classical map plus a learned correction, the cheapest network that knows D.

    .. math:: \chi = \mathrm{mask} \cdot (\chi_0 + U[\chi_0, \mathrm{TKD}_{t_1}, \dots,
       \mathrm{TKD}_{t_n}, W b, \bar\sigma / \sigma, \mathrm{mask}, \sigma / s])

    Voxel size and B0 enter by the classical maps alone. What differs between thresholds lies near
    the cone, so that the network can tell streaks from structure; compare the fields split by
    \|D\| of DIAM-CNN (Si et al. 2023). U starts at zero: untrained, it is the classical map.
    Degree-1 homogeneous as `qsmnet.networks.unrolled.Unrolled`.

    Parameters
    ----------
    base, levels, convolutions, widest, fold
        Of the `SmallUNet`.
    thresholds
        t of the divisions, in (0, 2/3).
    start, start_iterations
        chi_0 (`classical_map`).
    scale
        s: ``median`` of the absolute field in the mask, or ``rms``.
    padding
        Size of the FFT grid over the volume's.
    kernel
        Of D. Train with the kernel that makes the data; a scan wants ``sampled``.
    magnitude
        Whether U is given the gradient-echo magnitude, too (`relative_magnitude`).

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    #: The grid at inference is the bounding box of the object; FFTs pad by themselves.
    field_of_view: ClassVar[float] = 1.0
    summary: ClassVar[Summary] = Summary(
        cost="1 FFT pair a threshold and one pass of the network; 2 pairs an iteration of TV",
        use="The cheap network beside `unrolled`: no step to the data after the correction.",
        reference="compare Si et al. 2023 (DIAM-CNN)",
    )

    def __init__(
        self,
        base: int = 16,
        levels: int = 4,
        convolutions: int = 2,
        thresholds: Sequence[float] = (0.07, 0.15, 0.3),
        start: Start = "tv",
        start_iterations: int = 20,
        scale: Scale = "median",
        padding: float = 1.25,
        kernel: Kernel = "prism",
        magnitude: bool = False,
        widest: int | None = None,
        fold: int = 1,
    ) -> None:
        super().__init__()
        check_start(start, start_iterations)
        check_scale(scale)
        check_padding(padding)
        check_switch("magnitude", magnitude)
        self.thresholds = [float(threshold) for threshold in thresholds]
        if not all(0 < threshold < 2 / 3 for threshold in self.thresholds):
            raise ValueError(f"thresholds must lie in (0, 2/3), got {self.thresholds}")
        self.start, self.start_iterations = start, start_iterations
        self.scale, self.padding = scale, padding
        self.kernel: Kernel = kernel
        self.magnitude = magnitude
        channels = 5 + len(self.thresholds) + magnitude
        self.correction = SmallUNet(channels, base, levels, convolutions, widest, fold)

    def forward(
        self,
        field: Volume,
        support: Volume,
        noise: Volume,
        mask: Volume,
        geometry: Sequence[Geometry],
        magnitude: Volume | None = None,
    ) -> Volume:
        """Susceptibility in ppm, zero outside the mask; see `qsmnet.networks.contract.Network`."""
        problem = Problem.of(
            field, support, noise, mask, geometry, self.kernel, self.padding, self.scale
        )
        shown = (relative_magnitude(magnitude, problem.mask),) if self.magnitude else ()
        chi = classical_map(problem, self.start, self.start_iterations)
        channels = (
            chi,
            *(truncated_division(problem, threshold) for threshold in self.thresholds),
            problem.weight * problem.field,
            problem.certainty,
            problem.mask,
            problem.noise * problem.mask,
            *shown,
        )
        corrected: Tensor = chi + self.correction(torch.cat(channels, dim=1)) * problem.mask
        return problem.scale * corrected
