"""Unrolled iterations of a weighted data term and a learned prior: the project's main network."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from qsmnet.dipole import Kernel
from qsmnet.networks.classical import Start
from qsmnet.networks.problem import (
    Number,
    Problem,
    Scale,
    Volume,
    relative_magnitude,
    rms_inside,
)
from qsmnet.networks.staged import Staged
from qsmnet.summary import Summary

_CHANNELS = 7
_MU = 0.05  # at the start of training, see `Unrolled`
_MU_NOISE = 1.0  # the same, times (sigma / s)^2: of strong noise the start is left as it is
_MU_LATER = 10.0  # of all but the first step: what comes before them has less noise than the data
_MOST_RMS = 5.0  # of the change by a step to the data, as a U-Net is shown it
_GAIN = 10.0  # of the numbers behind mu: they have further to go than a convolution's weights


class Unrolled(Staged):
    r"""Alternate a closed-form step towards the data and a small U-Net, a few times.

    With the field scaled by s (degree-1 homogeneous), z the last estimate, W the weight of the data
    and c a free constant, iteration k is

    .. math:: \tilde b = W (b - c) + (1 - W) F^{-1} D F z, \qquad
       x = F^{-1} \frac{D F \tilde b + \mu_k F z}{D^2 + \mu_k}, \qquad
       z \leftarrow \mathrm{mask} \cdot (x + U_k[x, (x - z) / \mathrm{rms}(x - z), W b,
       W (b - c - F^{-1} D F z) / \sigma, \mathrm{mask}, \bar\sigma / \sigma,
       \log \sigma / s]).

    After the last one comes another step to the data with its own :math:`\mu`, and a factor for the
    whole volume; :math:`\mu_k = \mathrm{softplus}(a_k) + \mathrm{softplus}(c_k) (\sigma/s)^2` and
    that factor know the noise. Last of all small unrest is shrunk (`shrunk`). The field where it is
    unknown is filled by the model's own, the majoriser of the weighted data term: taken as zero it
    would be a floor of 16 to 27 % on the error. All FFTs are float32 on a padded grid, under
    autocast too.

    The U-Nets start at zero, so that the untrained network is a majorise-minimise iteration from
    its classical start. :math:`\mu` starts at 0.05: with a much smaller one the mask makes the
    filled step no descent, and the untrained network's error would rise with k.

    Voxel size and B0 enter by D alone. With other settings the module is the unrolled networks of
    the literature, with the differences above: LPCNN (Lai et al. 2020,
    10.1007/978-3-030-59713-9_13), MoDL (Aggarwal et al. 2019, 10.1109/TMI.2018.2865356; MoDL-QSM:
    Feng et al. 2021, 10.1016/j.neuroimage.2021.118376) and SpiNet-QSM (Vaddadi et al. 2024);
    ``docs/networks.md`` has them.

    Parameters
    ----------
    iterations
        K.
    base, levels, convolutions, widest, fold
        Of each `SmallUNet`.
    shared
        Whether all iterations have the same weights.
    start
        The map that the first iteration is given (`classical_map`): ``zero``, ``tikhonov``, ``tkd``
        or ``tv``.
    start_iterations
        Of ``tv``; two FFT pairs each.
    start_scale
        Of ``tv``: what its strength without noise goes with, ``median`` of the field or ``rms``.
    fill
        Whether the unknown field is filled; without, it is zero and W counts for the network alone.
    final_consistency
        Whether the last step to the data, and the factor, are there.
    scale
        s: ``median`` of the absolute field in the mask, or ``rms``.
    padding
        Size of the FFT grid over the volume's.
    kernel
        Of D. Train with the kernel that makes the data; a scan wants ``sampled``.
    noise_input
        Whether the noise counts: in W, in :math:`\mu` and as an input. Without, every scan is taken
        to be alike.
    upright
        Whether the U-Nets work where B0 is the third axis and voxels are cubes (`Upright`).
    views
        Mirrored views of the maps over which a U-Net's correction is averaged; trained by itself it
        sees one.
    bands
        t of parts of x that every U-Net is shown, :math:`F^{-1} t^2 / (D^2 + t^2) F x`: what lies
        within about t of the cone, where the data leave x open.
    magnitude
        Whether every U-Net is given the gradient-echo magnitude, too (`relative_magnitude`): its
        edges are those of tissue, which susceptibility shares.
    shrinkage
        Whether small unrest of the result is shrunk, after all the rest (`shrunk`).

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs and a small U-Net an iteration; 2 pairs an iteration of its TV start",
        use="Any voxel size and B0 direction that its card covers.",
        reference="after Aggarwal et al. 2019, 10.1109/TMI.2018.2865356; "
        "Lai et al. 2020, 10.1007/978-3-030-59713-9_13",
    )

    def __init__(
        self,
        iterations: int = 5,
        base: int = 12,
        levels: int = 3,
        convolutions: int = 2,
        shared: bool = False,
        start: Start = "tv",
        start_iterations: int = 20,
        fill: bool = True,
        final_consistency: bool = True,
        scale: Scale = "median",
        padding: float = 1.25,
        kernel: Kernel = "prism",
        noise_input: bool = True,
        magnitude: bool = False,
        widest: int | None = None,
        fold: int = 1,
        bands: Sequence[float] = (),
        upright: bool = True,
        views: int = 1,
        start_scale: Scale = "median",
        shrinkage: bool = False,
    ) -> None:
        unets: dict[str, Any] = {"inputs": _CHANNELS + len(bands) + magnitude}
        unets |= {"base": base, "levels": levels, "convolutions": convolutions}
        unets |= {"widest": widest, "fold": fold}
        super().__init__(
            iterations=iterations,
            shared=shared,
            start=start,
            start_iterations=start_iterations,
            start_scale=start_scale,
            scale=scale,
            padding=padding,
            kernel=kernel,
            noise_input=noise_input,
            magnitude=magnitude,
            upright=upright,
            views=views,
            shrinkage=shrinkage,
            unets=unets,
        )
        self.bands = [float(each) for each in bands]
        if not all(0 < each < 2 / 3 for each in self.bands):
            raise ValueError(f"bands must lie in (0, 2/3), got {self.bands}")
        self.fill = fill
        noisy = [_MU_LATER if k else _MU_NOISE for k in range(len(self.priors))]
        self.strengths = nn.ModuleList([_Strength(each) for each in noisy])
        self.final = _Final() if final_consistency else None

    @property
    def weighs_noise(self) -> bool:
        """Whether nothing takes the field of a noisy voxel at its face value."""
        weighed = self.fill and self.start in ("tv", "zero") and self.scale == "median"
        return self.takes_noise and weighed

    def seen(
        self, problem: Problem, iteration: int, chi: Volume, magnitude: Volume | None
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return what the U-Net of an iteration is given; the first channel is what it corrects."""
        residual = problem.residual(chi)
        mu = self.strengths[iteration % len(self.priors)](problem.level)
        x = self._consistent(problem, chi, residual, mu) * problem.mask
        channels = (
            x,
            _of_order_one(x - chi, problem.mask),
            problem.weight * problem.field,
            problem.over_noise(residual),
            problem.mask,
            problem.certainty,
            problem.log_noise,
            *(problem.near_the_cone(x, width) * problem.mask for width in self.bands),
        )
        shown = (relative_magnitude(magnitude, problem.mask),) if self.magnitude else ()
        return torch.cat((*channels, *shown), dim=1)

    def closing(self, problem: Problem, chi: Volume) -> list[Volume]:
        """Return the `last` step's estimate, with ``final_consistency``."""
        return [] if self.final is None else [self.last(problem, chi)]

    def last(self, problem: Problem, chi: Volume) -> Volume:
        """Step to the data and factor after the last iteration; only with ``final_consistency``."""
        assert self.final is not None  # noqa: S101
        mu = self.final.strength(problem.level)
        stepped = self._consistent(problem, chi, problem.residual(chi), mu) * problem.mask
        return stepped * self.final.factor(problem.level)

    def _consistent(self, problem: Problem, chi: Volume, residual: Volume, mu: Number) -> Volume:
        if self.fill:
            return problem.consistent(chi, residual, mu)
        return problem.consistent_with_zeros(chi, mu)


def _of_order_one(volume: Volume, mask: Volume) -> Volume:
    """Zero outside the mask, rms 1 within; what is below a thousandth of the scale stays small.

    At most 5: without noise a few veins of 100 rms are most of it, which no training has shown.
    """
    rms = rms_inside(volume, mask)
    return (volume * mask / rms.clamp_min(1e-3)).clamp(-_MOST_RMS, _MOST_RMS)


class _Strength(nn.Module):
    """mu as a function of the noise."""

    def __init__(self, noisy: float) -> None:
        super().__init__()
        self.still = nn.Parameter(torch.tensor(_inverse_softplus(_MU) / _GAIN))
        self.noisy = nn.Parameter(torch.tensor(_inverse_softplus(noisy) / _GAIN))

    def forward(self, level: Number) -> Number:
        """Positive; grows with the noise."""
        still, noisy = F.softplus(_GAIN * self.still), F.softplus(_GAIN * self.noisy)
        mu: Tensor = still + noisy * level.square()
        return mu


class _Final(nn.Module):
    """The last step's mu, and the factor that shrinks what noise has left uncertain."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = _Strength(_MU_LATER)
        self.change = nn.Parameter(torch.zeros(2))

    def factor(self, level: Number) -> Number:
        """One number a volume; 1 before training."""
        share = level.square() / (1 + level.square())
        factor: Tensor = 1 + self.change[0] + self.change[1] * share
        return factor


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
