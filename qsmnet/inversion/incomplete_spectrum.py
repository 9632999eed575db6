r"""Inversion of an incomplete spectrum: k-space in part, an object of known support."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from qsmnet.conjugate_gradient import conjugate_gradient
from qsmnet.dipole import Kernel, check_padding
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.support import Support, check_support
from qsmnet.inversion.tsvd import check_threshold, inverse_above
from qsmnet.inversion.unknown_field import volumes_of
from qsmnet.inversion.weighted_model import WeightedModel
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, Susceptibility

Outside = Literal["fill", "zero"]

# Iterations between two fillings: after 50 FFT pairs two heads are at 38.0 and 41.6 % error with 2,
# at 39.1 and 44.4 % with 4; with 1 the same takes 62
_INNER = 2


@dataclass(frozen=True)
class IncompleteSpectrum:
    r"""K-space above a threshold and the support together determine chi (Fuchs & Shmueli 2023).

    10.3389/fnins.2023.1130524:

    .. math:: \min_{\chi = M \chi} \| K_\delta (F \chi - D^{-1} F f) \|^2, \qquad
       K_\delta = [|D| > \delta]

    by conjugate gradients on :math:`M F^{-1} K_\delta F M \chi = M F^{-1} K_\delta D^{-1} F f`
    from zero. That the object ends at the mask fills the cone, without any prior. The iteration is
    what regularises: f is wrong by its noise and where it is unknown, and late iterates fit that.

    The paper takes f as zero outside of the mask (``outside: zero``): the cone is then filled to
    fit an error, and the third iterate is worse than the second. Here f is by default what the map
    so far explains where the field is unknown, and moves towards the data by W where it is known:
    with :math:`r = W (b - D\chi - c)`, the step is the solution of :math:`M F^{-1} K_\delta F M
    \Delta = M F^{-1} K_\delta D^{-1} F r` after two iterations. W is `LocalField.data_weight` over
    its mean, at most 1; c is a free constant, and so is the mean of chi. Differs from the authors'
    code also in that it starts from zero and stops by a relative change, not an absolute one.

    **Scaling of** :math:`\delta`. D has no unit: it moves neither with the field's unit, nor with
    the voxel. More noise wants a larger one, or fewer iterations.

    Parameters
    ----------
    threshold
        :math:`\delta` in (0, 2/3).
    outside
        ``fill`` or ``zero``, the field where it is unknown.
    support
        ``mask``; or ``free``, which leaves nothing to fill the cone with; ``auto`` is ``free``
        where `LocalField.harmonic_removed` says that fields of the brain's own were taken out.
    max_iterations, tolerance
        Stop when the change of chi in an iteration (of two, where it is filled), relative, is below
        ``tolerance``; at most this often.
    kernel
        ``sampled`` for scans; ``prism`` where the data are known to be made of partial-volume
        cuboids.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    threshold: float = 0.15
    outside: Outside = "fill"
    support: Support = "auto"
    max_iterations: int = 24
    tolerance: float = 0.02
    kernel: Kernel = "sampled"
    padding: float = 1.25

    takes: ClassVar[Input] = "local_field"
    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 10 to 24 iterations",
        use="No prior but the mask: sharp, and noisier than what penalises.",
        reference="Fuchs & Shmueli 2023, 10.3389/fnins.2023.1130524",
    )

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        if self.outside not in ("fill", "zero"):
            raise ValueError(f"outside is 'fill' or 'zero', got {self.outside!r}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < math.inf:
            raise ValueError("max_iterations is at least 1, tolerance at least 0")
        check_support(self.support)
        check_padding(self.padding)

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Invert, volume by volume."""
        maps = [self._volume(each) for each in volumes_of(local)]
        return Susceptibility(torch.stack(maps).reshape(local.field.shape), local.mask)

    def _volume(self, local: LocalField) -> Tensor:
        model = WeightedModel.of(local, self.support, self.kernel, self.padding)
        spectrum = model.data.spectrum
        kept = (spectrum.abs() > self.threshold).to(spectrum.dtype)
        inverse = inverse_above(spectrum, self.threshold)

        def solve(field: Tensor, iterations: int, tolerance: float = 0.0) -> Tensor:
            return conjugate_gradient(
                lambda chi: model.filter(chi, kept).mul_(model.support),
                model.filter(field, inverse).mul_(model.support),
                iterations,
                tolerance,
            )

        if self.outside == "zero":
            chi = solve(model.data.field, self.max_iterations, self.tolerance)
            return model.data.paste(chi, local)
        chi = torch.zeros_like(model.data.field)
        trust = model.weight.clamp(max=1.0)
        for _ in range(0, self.max_iterations, _INNER):
            residual = model.centred(model.data.field - model.field_of(chi))
            change = solve(residual.mul_(trust), _INNER)
            chi.add_(change)
            if _norm(change) <= self.tolerance * _norm(chi):
                break
        return model.data.paste(model.with_level(chi), local)


def _norm(volume: Tensor) -> float:
    return float(torch.linalg.vector_norm(volume))
