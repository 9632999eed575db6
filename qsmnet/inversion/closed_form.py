"""What the methods share that are one product in k-space.

They take the field as zero where it is unknown, and every voxel weighs the same: that is what makes
them closed.
"""

from collections.abc import Callable

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
