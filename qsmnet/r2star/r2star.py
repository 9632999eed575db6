"""The protocol of an R2* fit."""

from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.summary import Summary
from qsmnet.volumes import Scan


@runtime_checkable
class R2Star(Protocol):
    """A method that fits the decay of the magnitude; configure it by its fields, then call it."""

    summary: ClassVar[Summary]

    def __call__(self, scan: Scan, mask: Bool[Tensor, "x y z"], /) -> Float[Tensor, "x y z"]:
        """R2* in 1/s, not negative, zero outside the mask."""
        ...


def decay_in_mask(
    scan: Scan, mask: Bool[Tensor, "x y z"], least: int
) -> tuple[Float[Tensor, "echo voxel"], Float[Tensor, "echo 1"]]:
    """Magnitude of the voxels of the mask, and echo times in s, in double.

    Raises
    ------
    InconsistentError
        If there are fewer than ``least`` echoes.
    """
    if len(scan.echo_times) < least:
        raise InconsistentError(
            "echo times",
            f"{len(scan.echo_times)} of them, R2* needs {least}",
            "give more echoes" + (" or use another method" if least > 2 else ""),
        )
    magnitude = scan.magnitude[:, mask].double()
    times = torch.tensor(scan.echo_times, dtype=torch.float64, device=magnitude.device)
    return magnitude, times.view(-1, 1)


def on_grid(
    rate: Float[Tensor, " voxel"], mask: Bool[Tensor, "x y z"], most: float
) -> Float[Tensor, "x y z"]:
    """Map of rates between 0 and ``most`` 1/s; 0 where there is no signal."""
    volume = torch.zeros(mask.shape, device=rate.device)
    volume[mask] = rate.nan_to_num(nan=0.0).clamp(0.0, most).float()
    return volume
