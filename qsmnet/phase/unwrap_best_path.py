"""Best-path unwrapping: voxels are joined in the order of their reliability."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from skimage.restoration import unwrap_phase
from torch import Tensor

from qsmnet.geometry import Geometry


@dataclass(frozen=True)
class BestPathUnwrap:
    """Sort by reliability, follow a non-continuous path.

    Abdul-Rahman et al. 2007, 10.1364/AO.46.006623, in scikit-image's implementation. The
    reliability of a voxel is the inverse of its second differences; edges between voxels are
    resolved from the most to the least reliable one. The result is exact: multiples of 2 pi are all
    that is added. Parts of the mask that do not touch each other get unrelated multiples.

    Parameters
    ----------
    seed
        Of scikit-image's internal tie breaking, so that a run repeats bit for bit.
    """

    seed: int = 0

    exact: ClassVar[bool] = True

    def __call__(
        self,
        wrapped: Float[Tensor, "echo x y z"],
        mask: Bool[Tensor, "x y z"],
        geometry: Geometry,  # noqa: ARG002 - part of the protocol; the path does not depend on it
        /,
    ) -> Float[Tensor, "echo x y z"]:
        """Unwrapped phase in rad, zero outside the mask."""
        outside = ~mask.numpy()
        return torch.stack([self._volume(volume.numpy(), outside) for volume in wrapped])

    def _volume(self, wrapped: np.ndarray, outside: np.ndarray) -> Tensor:
        inside = np.where(outside, 0.0, wrapped).astype(np.float64)
        unwrapped = unwrap_phase(  # type: ignore[no-untyped-call]
            np.ma.array(inside, mask=outside), rng=self.seed
        )
        return torch.from_numpy(np.ma.filled(unwrapped, 0.0).astype(np.float32))
