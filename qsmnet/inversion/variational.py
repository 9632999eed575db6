"""What the methods share that minimise a weighted data term and a prior by ADMM."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Kernel, check_padding
from qsmnet.inversion.admm import Solver
from qsmnet.inversion.fidelity import Fidelity
from qsmnet.inversion.harmonic import WeakHarmonic
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.prior import Prior, TotalVariation
from qsmnet.inversion.support import Support, check_support, is_free
from qsmnet.inversion.unknown_field import DataTerm, noise_of_weighted, volumes_of
from qsmnet.volumes import LocalField, Susceptibility

#: Flag of a nonlinear method that was not given the phase that 1 ppm makes.
LINEAR = "radians_per_ppm unknown: the data term was linear (give echo times and B0)"


@dataclass(frozen=True)
class Variational(ABC):
    """Parameters, checks and the loop over volumes; a method says how one volume is solved.

    Parameters
    ----------
    regularisation, noise_gain
        Strength of the prior: ``regularisation`` + ``noise_gain`` sd, with 1/sd^2 averaged.
    support
        ``mask`` confines chi to the mask, ``free`` does not, ``auto`` is ``free`` where
        `LocalField.harmonic_removed` says so.
    weak_harmonic
        beta of the residual background in mm^4; 0 has none.
    constant
        Whether the field has a free constant.
    max_iterations, tolerance
        Stop when the change of chi in the mask, relative, is below ``tolerance``; at most this
        often.
    kernel
        Kernel that inverts.
    padding
        Size of the periodic FFT grid over that of the mask's bounding box.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    regularisation: float = 2e-5
    noise_gain: float = 0.06
    support: Support = "auto"
    weak_harmonic: float = 0.0
    constant: bool = True
    max_iterations: int = 40
    tolerance: float = 5e-3
    kernel: Kernel = "sampled"
    padding: float = 1.25

    takes: ClassVar[Input] = "local_field"

    def __post_init__(self) -> None:
        # written so that NaN and infinity fail
        if not (0 < self.regularisation < math.inf and 0 <= self.noise_gain < math.inf):
            raise ValueError("regularisation must be positive and noise_gain not negative")
        check_support(self.support)
        if not 0 <= self.weak_harmonic < math.inf:
            raise ValueError(f"weak_harmonic is at least 0, got {self.weak_harmonic}")
        if self.max_iterations < 1 or not 0 <= self.tolerance < math.inf:
            raise ValueError("max_iterations is at least 1, tolerance at least 0")
        check_padding(self.padding)

    def __call__(
        self, local: LocalField, /, initial: Float[Tensor, "*batch x y z"] | None = None
    ) -> Susceptibility:
        """Invert, volume by volume; ``initial`` is a susceptibility in ppm to start from."""
        starts = [None] if initial is None else initial.reshape(-1, *initial.shape[-3:])
        maps = [
            self._volume(each, None if initial is None else starts[i])
            for i, each in enumerate(volumes_of(local))
        ]
        chi = torch.stack(maps).reshape(local.field.shape)
        return Susceptibility(chi, local.mask, flags=self._flags(local))

    def weight_of_gradient(self, local: LocalField) -> float:
        """Return the lambda that is used for this field, in the unit of ``regularisation``."""
        return self.regularisation + self.noise_gain * noise_of_weighted(local)

    def outer_field(self, local: LocalField) -> Float[Tensor, "x y z"]:
        """Field in ppm, in the mask of one volume, of what ``support`` lets lie off the mask."""
        data = self._data(local)
        if data.scale() == 0:
            return torch.zeros_like(local.field)
        outer = self._solve(data, local, None) * (1 - data.support)
        return data.paste(data.field_of(outer), local)

    def _volume(self, local: LocalField, initial: Tensor | None) -> Tensor:
        data = self._data(local)
        if data.scale() == 0:
            return torch.zeros_like(local.field)
        start = None if initial is None else data.pad(initial * local.mask)
        return data.paste(self._solve(data, local, start), local)

    def _flags(self, local: LocalField) -> tuple[str, ...]:  # noqa: ARG002 of no method by itself
        return ()

    @abstractmethod
    def _solve(self, data: DataTerm, local: LocalField, start: Tensor | None) -> Tensor:
        """Susceptibility on the padded grid."""

    def _data(self, local: LocalField) -> DataTerm:
        return DataTerm.of(local, self.kernel, self.padding)

    def _prior(self, data: DataTerm, local: LocalField, strength: float) -> Prior:  # noqa: ARG002 of TV
        return TotalVariation(data, strength)

    def _fluid(self, data: DataTerm, local: LocalField) -> Tensor | None:  # noqa: ARG002 of MEDI's
        return None

    def _solver(
        self,
        data: DataTerm,
        local: LocalField,
        fidelity: Fidelity,
        strength: float,
        start: Tensor | None = None,
    ) -> Solver:
        free = is_free(self.support, local)
        harmonic = None
        if self.weak_harmonic > 0:
            harmonic = WeakHarmonic(data, self.weak_harmonic, fidelity.penalty)
        prior = self._prior(data, local, strength * fidelity.level)
        solver = Solver(data, fidelity, prior, free, harmonic, self._fluid(data, local))
        if start is not None:
            solver.start_from(start)
        return solver
