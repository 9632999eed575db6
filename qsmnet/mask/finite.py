"""NaN and infinity: refused where they would matter, zero where they would not."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.errors import NumericalError


def finite_in_mask(
    values: Float[Tensor, "*echo x y z"], mask: Bool[Tensor, "x y z"], source: str | Path
) -> Float[Tensor, "*echo x y z"]:
    """``values`` with NaN and infinity outside the mask replaced by zero.

    An FFT would spread one bad voxel over the whole volume.

    Raises
    ------
    NumericalError
        If a voxel inside the mask is NaN or infinite.
    """
    finite = values.isfinite()
    bad = int((~finite & mask).sum())
    if bad:
        raise NumericalError(
            source,
            f"{bad} voxels inside the mask are NaN or infinite",
            "leave them out of the mask, or repair the file",
        )
    return torch.where(finite, values, 0.0)
