"""Best-path unwrapping: voxels are joined in the order of their reliability."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from skimage.restoration import unwrap_phase
from torch import Tensor

from qsmnet.summary import Summary
from qsmnet.volumes import Scan


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
    summary: ClassVar[Summary] = Summary(
        cost="no FFT; one sort of the edges an echo",
        use="Exact; where there is no magnitude to tell which voxels to trust.",
        reference="Abdul-Rahman et al. 2007, 10.1364/AO.46.006623",
    )

    def __call__(
        self, scan: Scan, mask: Bool[Tensor, "x y z"], /, count: int | None = None
    ) -> Float[Tensor, "echo x y z"]:
        """Unwrapped phase in rad of the first ``count`` echoes (all), zero outside the mask."""
        outside, wrapped = ~mask.numpy(), scan.wrapped_phase[:count]
        return torch.stack([self._volume(volume.numpy(), outside) for volume in wrapped])

    def _volume(self, wrapped: np.ndarray, outside: np.ndarray) -> Tensor:
        inside = np.where(outside, 0.0, wrapped).astype(np.float64)
        unwrapped = unwrap_phase(  # type: ignore[no-untyped-call]
            np.ma.array(inside, mask=outside), rng=self.seed
        )
        return torch.from_numpy(np.ma.filled(unwrapped, 0.0).astype(np.float32))
