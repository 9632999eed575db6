"""The field of the sources in the mask, of one from which every harmonic part was removed."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.dipole import Kernel
from qsmnet.inversion.tv import TV
from qsmnet.inversion.unknown_field import volumes_of
from qsmnet.volumes import LocalField

# lambda in mm over the typical field: TV's default for a head, in proportion to the field's unit
_STRENGTH = 3e-3


def without_outer_sources(local: LocalField, kernel: Kernel) -> LocalField:
    r"""Put back what a background removal took of the field of the sources in the mask.

    A removal takes everything out that is harmonic in the mask, the brain's own share too: what is
    left is the field of the brain *and* of sources off the mask that cancel that share. Total
    variation with a susceptibility that may lie anywhere finds both, and

    .. math:: b' = b - D (1 - \mathrm{mask}) \chi

    is, as far as that is right, the field of the sources in the mask alone: what an inversion that
    confines chi to the mask is made for. What it is worth is in docs/training.md.

    Parameters
    ----------
    local
        Field in ppm and its noise; nothing is done unless ``harmonic_removed``.
    kernel
        Of the dipole.
    """
    if not local.harmonic_removed:
        return local
    fields = [_inner_field(each, kernel) for each in volumes_of(local)]
    field = torch.stack(fields).reshape(local.field.shape)
    return replace(local, field=field, harmonic_removed=False)


def _inner_field(local: LocalField, kernel: Kernel) -> Float[Tensor, "x y z"]:
    known = local.field[local.support > 0]
    typical = float(known.abs().median()) if known.numel() else 0.0
    if typical == 0:
        return local.field
    # to no tolerance, so that a field of another unit gives the same
    solver = TV(_STRENGTH * typical, support="free", tolerance=0.0, kernel=kernel)
    return local.field - solver.outer_field(local)
