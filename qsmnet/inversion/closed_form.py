"""What the methods share that are one product in k-space.

They take the field as zero where it is unknown, and every voxel weighs the same: that is what makes
them closed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from qsmnet.dipole import Dipole, Kernel
from qsmnet.volumes import LocalField, Susceptibility


def invert_in_kspace(
    local: LocalField, inverse: Callable[[Dipole], Tensor], kernel: Kernel, padding: float
) -> Susceptibility:
    """``F^-1 inverse F field`` in the mask, with ``inverse`` on the padded grid; one FFT pair."""
    shape = local.field.shape[-3:]
    dipole = Dipole(shape, local.geometry, kernel, padding, device=local.field.device)
    chi = dipole.filter(local.field * local.support, inverse(dipole)) * local.mask
    return Susceptibility(chi, local.mask)


def point_spread_peak(dipole: Dipole, inverse: Tensor) -> Tensor:
    """Height of the point spread function of ``inverse``: what susceptibility is shrunk to."""
    values, size = inverse * dipole.spectrum, dipole.padded_shape[2]
    # the half spectrum holds every plane but kz = 0 (and size / 2) once for two
    weight = torch.full((values.shape[-1],), 2.0, dtype=values.dtype, device=values.device)
    weight[0] = 1.0
    if size % 2 == 0:
        weight[-1] = 1.0
    total = (values * weight).sum((-3, -2, -1))
    return total / (values.shape[-3] * values.shape[-2] * size)
