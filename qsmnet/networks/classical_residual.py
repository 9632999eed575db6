"""A U-Net that corrects a classical map, seeing truncated division at several thresholds."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Kernel
from qsmnet.networks.classical import Start, truncated_division
from qsmnet.networks.problem import Problem, Scale, Volume, relative_magnitude
from qsmnet.networks.staged import Staged
from qsmnet.summary import Summary


class ClassicalResidual(Staged):
    r"""Classical map plus a learned correction, the cheapest network that knows D.

    .. math:: \chi = \mathrm{mask} \cdot (\chi_0 + U[\chi_0, \mathrm{TKD}_{t_1} - \chi_0, \dots,
       \mathrm{TKD}_{t_n} - \chi_0, W b, \bar\sigma / \sigma, \mathrm{mask}, \log \sigma / s])

    Voxel size and B0 enter by the classical maps, and by how these are turned upright. What differs
    between thresholds lies near the cone, so that the network can tell streaks from structure;
    compare the fields split by \|D\| of DIAM-CNN (Si et al. 2023). U starts at zero: untrained, it
    is the classical map.
    Degree-1 homogeneous as `qsmnet.networks.unrolled.Unrolled`.

    Parameters
    ----------
    base, levels, convolutions, widest, fold
        Of the `SmallUNet`.
    thresholds
        t of the divisions, in (0, 2/3).
    start, start_iterations, start_scale
        chi_0 (`classical_map`).
    scale
        s: ``median`` of the absolute field in the mask, or ``rms``.
    padding
        Size of the FFT grid over the volume's.
    kernel
        Of D. Train with the kernel that makes the data; a scan wants ``sampled``.
    upright
        Whether U works where B0 is the third axis and voxels are cubes (`Upright`).
    views
        Mirrored views of the maps over which U's correction is averaged; trained by itself it
        sees one.
    magnitude
        Whether U is given the gradient-echo magnitude, too (`relative_magnitude`).
    shrinkage
        Whether small unrest of the result is shrunk (`shrunk`).

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

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
        upright: bool = True,
        views: int = 1,
        start_scale: Scale = "median",
        shrinkage: bool = False,
    ) -> None:
        self.thresholds = [float(threshold) for threshold in thresholds]
        if not all(0 < threshold < 2 / 3 for threshold in self.thresholds):
            raise ValueError(f"thresholds must lie in (0, 2/3), got {self.thresholds}")
        unets: dict[str, Any] = {"inputs": 5 + len(self.thresholds) + magnitude}
        unets |= {"base": base, "levels": levels, "convolutions": convolutions}
        unets |= {"widest": widest, "fold": fold}
        super().__init__(
            iterations=1,
            shared=False,
            start=start,
            start_iterations=start_iterations,
            start_scale=start_scale,
            scale=scale,
            padding=padding,
            kernel=kernel,
            noise_input=True,
            magnitude=magnitude,
            upright=upright,
            views=views,
            shrinkage=shrinkage,
            unets=unets,
        )

    def seen(
        self,
        problem: Problem,
        iteration: int,  # noqa: ARG002  there is one
        chi: Volume,
        magnitude: Volume | None,
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return what U is given; the first channel is the classical map."""
        shown = (relative_magnitude(magnitude, problem.mask),) if self.magnitude else ()
        channels = (
            chi,
            *(truncated_division(problem, threshold) - chi for threshold in self.thresholds),
            problem.weight * problem.field,
            problem.certainty,
            problem.mask,
            problem.log_noise,
            *shown,
        )
        return torch.cat(channels, dim=1)
