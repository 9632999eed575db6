"""Networks of U-Nets that correct an estimate, one after another, from a classical start."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qsmnet.dipole import Kernel, check_padding
from qsmnet.geometry import Geometry
from qsmnet.networks.classical import Start, check_start, classical_map
from qsmnet.networks.problem import Problem, Scale, Volume, check_scale, check_switch
from qsmnet.networks.runaway import tamed
from qsmnet.networks.shrinkage import shrunk
from qsmnet.networks.small_unet import SmallUNet
from qsmnet.networks.upright import Upright
from qsmnet.networks.views import VIEWS, averaged


class Staged(nn.Module, ABC):
    r"""Classical start, then K times: what a U-Net is given, and its correction in the mask.

    .. math:: z_k = x_k + \mathrm{mask} \cdot R^{-1} U_k[R (x_k, \dots)]

    R turns maps to where B0 is the third axis and voxels are cubes (`Upright`); only the correction
    is interpolated, never what is corrected. The U-Nets start at zero and see maps over the field's
    scale alone, no D, so that each can be trained by itself on crops of its maps
    (`qsmnet.training.stages`).

    Parameters
    ----------
    iterations
        K.
    shared
        Whether all iterations have the same weights.
    start, start_iterations, start_scale
        Of `classical_map`.
    scale
        ``median`` of the absolute field in the mask, or ``rms``.
    padding
        Size of the FFT grid over the volume's.
    kernel
        Of D.
    noise_input
        Whether the noise is looked at.
    magnitude
        Whether there is a magnitude among what the U-Nets are given.
    upright
        Whether R is there, or the U-Nets see the scan's own grid.
    views
        Over which a correction is averaged: 1, 2, 4 or 8 (`averaged`).
    shrinkage
        Whether small unrest of the result is shrunk (`shrunk`).
    unets
        Sizes of each `SmallUNet`, its inputs among them.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    #: The grid at inference is the bounding box of the object; FFTs pad by themselves.
    field_of_view: ClassVar[float] = 1.0

    def __init__(
        self,
        *,
        iterations: int,
        shared: bool,
        start: Start,
        start_iterations: int,
        start_scale: Scale,
        scale: Scale,
        padding: float,
        kernel: Kernel,
        noise_input: bool,
        magnitude: bool,
        upright: bool,
        views: int,
        shrinkage: bool,
        unets: dict[str, Any],
    ) -> None:
        super().__init__()
        if type(iterations) is not int or iterations < 1:
            raise ValueError(f"iterations must be a whole number from 1, got {iterations}")
        check_start(start, start_iterations)
        check_scale(scale)
        check_scale(start_scale, "start_scale")
        check_padding(padding)
        check_switch("noise_input", noise_input)
        check_switch("magnitude", magnitude)
        check_switch("upright", upright)
        check_switch("shrinkage", shrinkage)
        if views not in VIEWS:
            raise ValueError(f"views must be one of {', '.join(map(str, VIEWS))}, got {views!r}")
        if views > 2 and not upright:
            raise ValueError(f"views of {views} mirror a cone about the third axis: set upright")
        self.iterations, self.scale, self.padding = iterations, scale, padding
        self.start, self.start_iterations = start, start_iterations
        self.start_scale: Scale = start_scale
        self.kernel: Kernel = kernel
        self.takes_noise, self.magnitude, self.upright = noise_input, magnitude, upright
        self.views, self.shrinkage = views, shrinkage
        #: What `qsmnet.weights.store.build_network` makes one of the priors of.
        self.prior_config = {"_target_": f"{SmallUNet.__module__}.{SmallUNet.__name__}", **unets}
        #: Of the last result, what its user should know.
        self.remarks: tuple[str, ...] = ()
        distinct = 1 if shared else iterations
        self.priors = nn.ModuleList([SmallUNet(**unets) for _ in range(distinct)])

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
        return self.estimates(field, support, noise, mask, geometry, magnitude)[-1]

    def estimates(
        self,
        field: Volume,
        support: Volume,
        noise: Volume,
        mask: Volume,
        geometry: Sequence[Geometry],
        magnitude: Volume | None = None,
    ) -> list[Tensor]:
        """Susceptibility in ppm after each iteration, and last the result: for deep supervision."""
        problem = self.problem(field, support, noise, mask, geometry)
        chi, found, remarks = self.begin(problem), [], []
        for k in range(self.iterations):
            channels = self.seen(problem, k, chi, magnitude)
            chi, remark = tamed(partial(self.corrected, k, problem), channels, problem.mask)
            found.append(chi)
            remarks.append(remark)
        self.remarks = tuple(dict.fromkeys(filter(None, remarks)))
        found += self.closing(problem, chi)
        if self.shrinkage:
            found[-1] = shrunk(problem, found[-1])
        return [problem.scale * each for each in found]

    def problem(
        self,
        field: Volume,
        support: Volume,
        noise: Volume,
        mask: Volume,
        geometry: Sequence[Geometry],
    ) -> Problem:
        """Scaled field, as this network weighs it; all of its maps are over the problem's scale."""
        told = noise if self.takes_noise else torch.zeros_like(noise)
        return Problem.of(
            field, support, told, mask, geometry, self.kernel, self.padding, self.scale
        )

    def begin(self, problem: Problem) -> Volume:
        """Estimate that the first iteration is given."""
        return classical_map(problem, self.start, self.start_iterations, self.start_scale)

    def prior(self, iteration: int) -> nn.Module:
        """U-Net of an iteration."""
        return self.priors[iteration % len(self.priors)]

    def corrected(
        self, iteration: int, problem: Problem, channels: Float[Tensor, "batch channel x y z"]
    ) -> Volume:
        """Estimate after an iteration, of what its U-Net is given."""
        frames = self.frames(problem)
        if not any(frames):
            correction = self.correction(iteration, channels)
            return channels[:, :1] + problem.mask * correction
        corrections = [
            self._corrected_upright(iteration, each, inside, frame)
            for each, inside, frame in zip(channels, problem.mask, frames, strict=True)
        ]
        return channels[:, :1] + problem.mask * torch.stack(corrections)

    def correction(self, iteration: int, channels: Tensor) -> Volume:
        """Return what the U-Net of an iteration makes of channels that are upright."""
        return averaged(self.prior(iteration), channels, self.views)

    def frames(self, problem: Problem) -> list[Upright | None]:
        """Of each item the grid on which its U-Nets work, None for its own."""
        if not self.upright:
            return [None] * len(problem.geometry)
        items = zip(problem.mask, problem.geometry, strict=True)
        return [Upright.about(mask[0] > 0, geometry) for mask, geometry in items]

    @abstractmethod
    def seen(
        self, problem: Problem, iteration: int, chi: Volume, magnitude: Volume | None
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return what the U-Net of an iteration is given; the first channel is what it corrects."""

    def closing(self, problem: Problem, chi: Volume) -> list[Volume]:  # noqa: ARG002
        """Estimates after that of the last iteration, the result last; none unless overridden."""
        return []

    def _corrected_upright(
        self, iteration: int, channels: Tensor, mask: Tensor, frame: Upright | None
    ) -> Tensor:
        turned, _ = turned_inside(frame, channels, mask)
        return turned_back(frame, self.correction(iteration, turned[None])[0])


def turned_inside(
    frame: Upright | None, volumes: Float[Tensor, "c x y z"], mask: Float[Tensor, "1 x y z"]
) -> tuple[Tensor, Tensor]:
    """Volumes and mask on the grid of a frame, zero outside the mask."""
    if frame is None:
        return volumes, mask
    inside = (frame.turned(mask) > 0.5).to(mask)
    return frame.turned(volumes) * inside, inside


def turned_back(frame: Upright | None, correction: Float[Tensor, "1 x y z"]) -> Tensor:
    """Return a correction on the grid of the scan."""
    return correction if frame is None else frame.turned_back(correction)
