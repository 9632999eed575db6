"""Total variation by ADMM, with the field known in part of the grid only."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Kernel, check_padding
from qsmnet.inversion.gradient import difference, edges_inside, laplacian_spectrum
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.unknown_field import DataTerm, noise_of_weighted, volumes_of
from qsmnet.summary import Summary
from qsmnet.volumes import LocalField, Susceptibility

Outside = Literal["weight", "fill", "zero"]
Support = Literal["auto", "mask", "free"]

_AXES = (-3, -2, -1)
# Tuned on 64^3 to 96^3 heads, noise 0 to 0.01 ppm: fewest FFT pairs to within 0.5 points of the
# limit. All are
# relative to scales of the data, so that neither the field's unit nor the best voxel's noise moves
# them.
_FIELD_PENALTY = 0.3  # mu over the mean weight
_SUPPORT_PENALTY = 0.01  # nu over the mean weight
_STEP = 1.5  # lambda / rho, in units of the field's spread a voxel
_RELAXATION = 1.6
_RECENTRE = 5  # iterations between fits of the mean of chi, which cost no FFT


@dataclass(frozen=True)
class TV:
    r"""Weighted total variation.

    TV with ADMM follows Bilgic et al. 2014 (10.1002/mrm.25029), the weights Milovic et al. 2018
    (10.1002/mrm.27073).

    .. math:: \min_{\chi, c}\ \tfrac12 \sum W (D\chi + c - b)^2
       + \lambda \sum_{i} \sum_{edges} |\partial_i \chi|, \qquad \chi = 0 \text{ off the mask}

    W is `LocalField.data_weight` over its mean where the field is known, zero where it is not; c is
    a free constant (k = 0 is not in the data); derivatives are forward differences over the voxel
    edge in mm. Differs from common codes: the field outside the mask is unknown instead of zero,
    chi is confined to the mask, the step at the mask's surface is not penalised (chi there is
    relative to nothing), FFTs are real and padded.

    **Scaling of** :math:`\lambda`. Its unit is ppm mm. A field times s with :math:`\lambda` times s
    gives chi times s. Both sums run over voxels and derivatives are per mm, so that the same object
    on a finer grid keeps the same :math:`\lambda`. Noise of standard deviation sd wants a
    :math:`\lambda` that grows with it: :math:`\lambda` = ``regularisation`` + ``noise_gain`` sd,
    with :math:`1/sd^2` averaged where sd is a map.

    Parameters
    ----------
    regularisation
        :math:`\lambda` of a noise-free field, in ppm mm; covers what the model cannot explain.
    noise_gain
        Growth of :math:`\lambda` with the noise of the field, in mm. Best :math:`\lambda` measured
        on heads of two kinds: 2e-5 to 5e-5, 6e-5 to 9e-5, 1.2e-4, 3.5e-4 and 8e-4 ppm mm at sd 0,
        0.001, 0.002, 0.005 and 0.01 ppm.
    outside
        The field where it is unknown. ``weight``: weight zero, by the splitting y = D chi.
        ``fill``: the model's own field, b <- W b + (1 - W) D chi, with chi as the solver has it,
        unmasked: the same minimum, in twice the iterations, in ten times as many where the noise
        varies much. ``zero``: zeros taken as data, weights and support ignored; the common and
        worse choice, half the FFTs, kept for comparison.
    support
        ``mask`` confines chi to the mask: right for the field of the sources in the mask. ``free``
        leaves chi outside to take up any field that sources outside could make: right after a
        background removal that took such fields, the brain's own too, out of the data. ``auto``
        is ``free`` where `LocalField.harmonic_removed` says so, else ``mask``.
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
    noise_gain: float = 0.06
    outside: Outside = "weight"
    support: Support = "auto"
    max_iterations: int = 40
    tolerance: float = 5e-3
    kernel: Kernel = "sampled"
    padding: float = 1.25

    takes: ClassVar[Input] = "local_field"
    summary: ClassVar[Summary] = Summary(
        cost="2 FFT pairs an iteration, 20 to 40 iterations",
        use="The classical choice: edges kept, noise and unknown field weighted.",
        reference="Bilgic et al. 2014, 10.1002/mrm.25029; Milovic et al. 2018, 10.1002/mrm.27073",
    )

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not (0 < self.regularisation < math.inf and 0 <= self.noise_gain < math.inf):
            raise ValueError("regularisation must be positive and noise_gain not negative")
        if self.outside not in ("weight", "fill", "zero"):
            raise ValueError(f"outside is 'weight', 'fill' or 'zero', got {self.outside!r}")
        if self.support not in ("auto", "mask", "free"):
            raise ValueError(f"support is 'auto', 'mask' or 'free', got {self.support!r}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < math.inf:
            raise ValueError("max_iterations is at least 1, tolerance at least 0")
        check_padding(self.padding)

    def __call__(
        self, local: LocalField, /, initial: Float[Tensor, "*batch x y z"] | None = None
    ) -> Susceptibility:
        """Invert, volume by volume; ``initial`` is a susceptibility in ppm to start from."""
        starts = [None] if initial is None else initial.reshape(-1, *initial.shape[-3:])
        volumes = list(volumes_of(local))
        maps = [
            self._volume(each, starts[i] if initial is not None else None)
            for i, each in enumerate(volumes)
        ]
        return Susceptibility(torch.stack(maps).reshape(local.field.shape), local.mask)

    def weight_of_gradient(self, local: LocalField) -> float:
        """Return the lambda that is used for this field, in ppm mm."""
        return self.regularisation + self.noise_gain * noise_of_weighted(local)

    def _volume(self, local: LocalField, initial: Tensor | None) -> Tensor:
        data = DataTerm.of(local, self.kernel, self.padding)
        if data.scale() == 0:
            return torch.zeros_like(local.field)
        free = self.support == "free" or (self.support == "auto" and local.harmonic_removed)
        solver = TVSolver(data, self.weight_of_gradient(local), self.outside, free)
        if initial is not None:
            solver.start_from(data.pad(initial * local.mask))
        for _ in range(self.max_iterations):
            if solver.iterate() < self.tolerance:
                break
        return data.paste(solver.chi, local)


class TVSolver:
    """Over-relaxed ADMM (Boyd et al. 2011, 10.1561/2200000016): z = grad chi, s = chi, y = D chi.

    With P the proximal step of a splitting, its copy and its multiplier are P(v) and v - P(v) of an
    array: v <- v + a (A chi - P(v)), and the FFT step draws A chi to 2 P(v) - v. Two FFT pairs an
    iteration, one with ``zero``.
    """

    def __init__(self, data: DataTerm, strength: float, outside: Outside, free: bool) -> None:
        self.data, self.outside = data, outside
        # W is relative to the best voxel; the penalties follow the typical one
        level = 1.0 if outside == "zero" else data.mean_weight()
        self.mu = _FIELD_PENALTY * level if outside == "weight" else 1.0
        self.nu = _SUPPORT_PENALTY * level if not free and outside != "zero" else 0.0
        self.threshold = _STEP * data.scale() / math.prod(data.voxel_size) ** (1 / 3)
        self.rho = strength * level / self.threshold
        self.kappa = data.weight / (data.weight + self.mu) if outside == "weight" else data.weight
        self.uniform = None if free else data.uniform()
        self.steps = 0
        self.edges = [edges_inside(data.support, axis) for axis in range(3)]
        # fresh memory costs more than what is done with it
        self.scratch = [torch.empty_like(data.field) for _ in range(3)]
        self.correction = torch.empty_like(data.field)
        self._prepare_spectra()
        self.start_from(torch.zeros_like(data.field))
        if self.uniform is not None:
            self._raise(self.uniform.level(data.field))

    def _prepare_spectra(self) -> None:
        spectrum = self.data.spectrum
        total = self.mu * spectrum**2 + self.nu
        total += self.rho * laplacian_spectrum(
            self.data.shape, self.data.voxel_size, spectrum.dtype, spectrum.device
        )
        # k = 0 is free where nothing confines chi; it is set to zero
        self.inverse = torch.where(total > 0, 1.0 / total, 0.0)
        self.data_gain = self.mu * spectrum * self.inverse
        if self.outside == "zero":
            self.data_part = torch.fft.rfftn(self.data.field, dim=_AXES).mul_(self.data_gain)

    def start_from(self, chi: Tensor) -> None:
        """Set every variable as if ``chi``, on the padded grid, had just been found."""
        self.chi = chi
        self.gradients = [difference(chi, axis) for axis in range(3)]
        self.copy = chi.clone()
        self.field = self._inverse_fft(torch.fft.rfftn(chi, dim=_AXES).mul_(self.data.spectrum))

    def iterate(self) -> float:
        """One iteration; returns the change of chi in the mask, relative."""
        spectrum = torch.fft.rfftn(self._pull(), dim=_AXES).mul_(self.inverse)
        if self.outside == "zero":
            spectrum.add_(self.data_part)
        else:
            spectrum.add_(torch.fft.rfftn(self._target(), dim=_AXES).mul_(self.data_gain))
        previous, self.chi = self.chi, self._inverse_fft(spectrum)
        missing = 0.0
        if self.outside != "zero":
            model = self._inverse_fft(spectrum.mul_(self.data.spectrum))
            missing = self._missing_level(model)
            self._advance_field(model)
        self._advance_chi()
        self._raise(missing)
        change = torch.linalg.vector_norm(previous.sub_(self.chi).mul_(self.data.support))
        size = torch.linalg.vector_norm(torch.mul(self.chi, self.data.support, out=previous))
        return float(change / size.clamp_min(torch.finfo(size.dtype).tiny))

    def _missing_level(self, model: Tensor) -> float:
        """Uniform susceptibility that the residual of ``model`` asks for; now and then only."""
        self.steps += 1
        if self.uniform is None or self.steps % _RECENTRE:
            return 0.0
        return self.uniform.level(self.data.field - model)

    def _raise(self, level: float) -> None:
        """Add a uniform susceptibility to chi and to all that follows it."""
        if self.uniform is None or level == 0:
            return
        self.chi.add_(self.data.support, alpha=level)
        self.copy.add_(self.data.support, alpha=level)
        self.field.add_(self.uniform.field, alpha=level)
        for axis, variable in enumerate(self.gradients):
            step = difference(self.data.support, axis, out=self.scratch[0])
            variable.add_(step, alpha=level)

    def _target(self) -> Tensor:
        # the free constant is eliminated: its best value given the splitting's array
        correction = torch.sub(self.data.field, self.field, out=self.correction)
        constant = torch.dot(self.kappa.ravel(), correction.ravel()) / self.kappa.sum()
        correction.sub_(constant).mul_(self.kappa)
        reflection = 2.0 if self.outside == "weight" else 1.0
        return torch.add(self.field, correction, alpha=reflection, out=self.scratch[2])

    def _advance_field(self, model: Tensor) -> None:
        if self.outside == "fill":
            self.field = model
        else:
            self.field.add_(model.sub_(self.field).sub_(self.correction), alpha=_RELAXATION)

    def _advance_chi(self) -> None:
        for axis, variable in enumerate(self.gradients):
            clipped = self._clip(axis)
            step = difference(self.chi, axis, out=self.scratch[1])
            variable.lerp_(step.addcmul_(clipped, self.edges[axis]), _RELAXATION)
        if self.nu:
            step = self._supported(self.scratch[0]).sub_(self.chi)
            self.copy.sub_(step, alpha=_RELAXATION)

    def _pull(self) -> Tensor:
        pull = self._supported(self.scratch[2])
        pull.mul_(2).sub_(self.copy).mul_(self.nu)
        for axis, variable in enumerate(self.gradients):
            clipped = self._clip(axis)
            edges = self.edges[axis]
            wanted = torch.addcmul(variable, clipped, edges, value=-2, out=self.scratch[1])
            size, factor = wanted.shape[axis], self.rho / self.data.voxel_size[axis] ** 2
            pull.sub_(wanted, alpha=factor)
            before = wanted.narrow(axis, 0, size - 1)
            pull.narrow(axis, 1, size - 1).add_(before, alpha=factor)
            pull.select(axis, 0).add_(wanted.select(axis, -1), alpha=factor)
        return pull

    def _supported(self, out: Tensor) -> Tensor:
        """Proximal step of the splitting s = chi: zero off the support."""
        return torch.mul(self.copy, self.data.support, out=out)

    def _clip(self, axis: int) -> Tensor:
        # gradients are kept as differences of neighbours, which saves a pass over memory
        bound = self.threshold * self.data.voxel_size[axis]
        return torch.clamp(self.gradients[axis], -bound, bound, out=self.scratch[0])

    def _inverse_fft(self, spectrum: Tensor) -> Tensor:
        result: Tensor = torch.fft.irfftn(spectrum, s=self.data.shape, dim=_AXES)
        return result
