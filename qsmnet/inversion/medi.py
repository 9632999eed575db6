"""Morphology enabled dipole inversion: a prior that spares the edges of the magnitude."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsmnet.dipole import Kernel, check_padding
from qsmnet.inversion.edge_mask import smooth_steps
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.medi_solver import MEDISolver
from qsmnet.inversion.spherical_mean import above_spherical_mean, data_term_above_mean
from qsmnet.inversion.tv import Support
from qsmnet.inversion.unknown_field import DataTerm, noise_of_weighted, volumes_of
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, Susceptibility

_NO_PHASE = "no echo times and B0: the data term is linear in the field"
_NO_MAGNITUDE = "no magnitude: its edges are not known, and none is spared"


@dataclass(frozen=True)
class MEDI:
    r"""L1 norm of the gradient where the magnitude has no edge, and a nonlinear data term.

    MEDI follows Liu T et al. 2011 (10.1002/mrm.22816) and Liu J et al. 2012
    (10.1016/j.neuroimage.2011.08.082), its data term and MERIT Liu T et al. 2013
    (10.1002/mrm.24272), the uniform fluid Liu Z et al. 2018 (10.1002/mrm.26946).

    .. math:: \min_{\chi, c}\ \frac{1}{2 s^2} \sum W
       \left| e^{i s (D\chi + c)} - e^{i s b} \right|^2
       + \lambda \sum_i \sum_{steps} M_i |\partial_i \chi|
       + \frac{\lambda_f}{2} \sum_{fluid} (\chi - \bar\chi_{fluid})^2,
       \qquad \chi = 0 \text{ off the mask}

    with s the phase in rad that 1 ppm makes, W, c and the derivatives as for TV, whose minimum this
    has where no edge is spared and residuals are small. Differs from the paper and common codes:
    the field outside the mask is unknown instead of zero, chi is confined to the mask, c is free,
    the share of edges is exact; the same minimum is found by ADMM in 2 FFT pairs an iteration,
    instead of by Gauss-Newton steps with conjugate gradients. The first iterations are linear, so
    that a strong source is not lost to a phase beyond half a turn, as it is where Gauss-Newton
    starts from zero.

    **Scaling of** :math:`\lambda`. As for TV: ppm mm, a larger one smooths more. Codes that
    multiply the data term by their :math:`\lambda_d` instead (1000 by default, 2000 in the
    consensus recommendations of 2024), with phases of :math:`s_d` rad a ppm (over one echo spacing)
    and weights of mean 1, minimise the same with :math:`\lambda = 1 / (2 \lambda_d s_d)`: 1.2e-4
    and 6e-5 ppm mm at 3 T and an echo spacing of 5 ms.

    Parameters
    ----------
    regularisation
        :math:`\lambda` of a noise-free field, in ppm mm.
    noise_gain
        Growth of :math:`\lambda` with the noise of the field, in mm.
    edge_share
        Share of the steps between neighbours in the mask that count as edges and are not penalised,
        in [0, 1). Common codes divide by the number of voxels: their 90 % is 0.3.
    merit
        Model error reduction: standard deviations of the residual beyond which a voxel loses
        weight, W / (residual / merit sd)^4. 0 is never.
    smv_radius
        In mm. Inverts what the field has above its mean over such spheres, which is free of what
        a background removal left, on a mask smaller by as much. 0 inverts the field itself.
    csf_weight
        :math:`\lambda_f`, relative to the data term; used where `LocalField.csf` says where
        cerebrospinal fluid is.
    support
        As for TV.
    max_iterations, tolerance
        Stop when the change of chi in the mask, relative, is below ``tolerance``; at most this
        often.
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

    regularisation: float = 2e-5
    noise_gain: float = 0.12
    edge_share: float = 0.3
    merit: float = 6.0
    smv_radius: float = 0.0
    csf_weight: float = 0.1
    support: Support = "auto"
    max_iterations: int = 40
    tolerance: float = 5e-3
    kernel: Kernel = "sampled"
    padding: float = 1.25

    takes: ClassVar[Input] = "local_field"
    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 20 to 40 iterations",
        use="A magnitude whose edges susceptibility shares, such as lesions with strong fields.",
        reference="Liu J et al. 2012, 10.1016/j.neuroimage.2011.08.082; "
        "Liu T et al. 2013, 10.1002/mrm.24272",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not (0 < self.regularisation < math.inf and 0 <= self.noise_gain < math.inf):
            raise ValueError("regularisation must be positive and noise_gain not negative")
        if not 0 <= self.edge_share < 1:
            raise ValueError(f"edge_share lies in [0, 1), got {self.edge_share}")
        for name in ("merit", "smv_radius", "csf_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is not negative, got {getattr(self, name)}")
        if self.support not in ("auto", "mask", "free"):
            raise ValueError(f"support is 'auto', 'mask' or 'free', got {self.support!r}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < math.inf:
            raise ValueError("max_iterations is at least 1, tolerance at least 0")
        check_padding(self.padding)

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Invert, volume by volume.

        Without ``radians_per_ppm`` the data term is linear, without a magnitude no edge is spared:
        both are flagged.

        Raises
        ------
        UsageError, InconsistentError
            If ``smv_radius`` does not fit the voxels or the mask.
        """
        flags: tuple[str, ...] = (_NO_PHASE,) if local.radians_per_ppm is None else ()
        flags += (_NO_MAGNITUDE,) if local.magnitude is None and self.edge_share else ()
        volumes = [self._volume(each) for each in volumes_of(local)]
        chi = torch.stack([chi for chi, _ in volumes]).reshape(local.field.shape)
        mask = torch.stack([mask for _, mask in volumes]).reshape(local.mask.shape)
        return Susceptibility(chi, mask, flags=flags)

    def weight_of_gradient(self, local: LocalField) -> float:
        """Return the lambda that is used for this field, in ppm mm."""
        return self.regularisation + self.noise_gain * noise_of_weighted(local)

    def _volume(self, local: LocalField) -> tuple[Tensor, Tensor]:
        mask, strength = local.mask, self.weight_of_gradient(local)
        if self.smv_radius:
            local = above_spherical_mean(local, self.smv_radius)
            mask = local.mask & (local.support > 0)
        data = DataTerm.of(local, self.kernel, self.padding)
        if data.scale() == 0:
            return torch.zeros_like(local.field), mask
        if self.smv_radius:
            data = data_term_above_mean(data, self.smv_radius, local.geometry)
        solver = self._solver(local, data, strength)
        for _ in range(self.max_iterations):
            if solver.iterate() < self.tolerance and solver.may_stop:
                break
        return data.paste(solver.chi, local) * mask, mask

    def _solver(self, local: LocalField, data: DataTerm, strength: float) -> MEDISolver:
        magnitude = torch.zeros_like(local.field) if local.magnitude is None else local.magnitude
        share = 0.0 if local.magnitude is None else self.edge_share
        smooth = smooth_steps(data.pad(magnitude), data.support, data.voxel_size, share)
        csf = None
        if local.csf is not None and self.csf_weight and bool((local.csf & local.mask).any()):
            csf = data.pad((local.csf & local.mask).to(local.field.dtype)).mul_(self.csf_weight)
        free = self.support == "free" or (self.support == "auto" and local.harmonic_removed)
        return MEDISolver(data, strength, free, smooth, local.radians_per_ppm, self.merit, csf)
