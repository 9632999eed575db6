"""Image-space U-Net in the class of QSMnet and DeepQSM, with the noise level as an input."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from qsmnet.geometry import Geometry
from qsmnet.networks.cells import LEAST_CELLS, padded_to_cells
from qsmnet.networks.contract import robust_scale
from qsmnet.networks.residual import ResidualBlock
from qsmnet.summary import Summary


class UNet(nn.Module):
    """Local field to susceptibility by learned convolutions alone: blind to voxel size and B0.

    After QSMnet (Yoon et al. 2018, 10.1016/j.neuroimage.2018.06.030) and DeepQSM (Bollmann et al.
    2019, 10.1016/j.neuroimage.2019.03.060). Differs from them: 3x3x3 kernels, no batch
    normalisation (so that whole volumes behave as patches), inputs divided by a robust scale that
    multiplies the output (so that the map is homogeneous), the noise's standard deviation as an
    input, residual blocks. It knows no geometry, so that it holds only near the voxel size and tilt
    it was trained for.

    Parameters
    ----------
    channels
        Feature maps at each level; each level after the first halves the grid.
    """

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; one pass of the network",
        use="1 mm and at most 10 degrees of tilt: the blind baseline elsewhere.",
        reference="after Yoon et al. 2018, 10.1016/j.neuroimage.2018.06.030; "
        "Bollmann et al. 2019, 10.1016/j.neuroimage.2019.03.060",
    )

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        widths = [int(c) for c in channels]
        self.stem = nn.Conv3d(3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList([ResidualBlock(w) for w in widths])
        self.down = nn.ModuleList([nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([nn.Conv3d(b, a, 1) for a, b in pairwise(widths)])
        self.decoder = nn.ModuleList([ResidualBlock(w) for w in widths[:-1]])
        self.head = nn.Conv3d(widths[0], 1, 1)
        self.multiple = 2 ** (len(widths) - 1)

    def forward(
        self,
        field: Float[Tensor, "batch 1 x y z"],
        support: Float[Tensor, "batch 1 x y z"],
        noise: Float[Tensor, "batch 1 x y z"],
        mask: Float[Tensor, "batch 1 x y z"],  # noqa: ARG002  # trained where it is the support
        geometry: Sequence[Geometry],  # noqa: ARG002  # blind to it: the baseline's limit
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Susceptibility in ppm; see `qsmnet.networks.contract.Network`."""
        scale = robust_scale(field, support)
        features = torch.cat([field * support / scale, support, noise * support / scale], dim=1)
        x, y, z = field.shape[-3:]
        # no more than gradients need, so that maps of other grids stay as they were
        padded = padded_to_cells(features, self.multiple, (LEAST_CELLS, 1, 1))
        result: Tensor = self._network(padded)
        return result[..., :x, :y, :z].float() * scale

    def _network(self, features: Tensor) -> Tensor:
        state = self.stem(features)
        skips = []
        for block, down in zip(self.encoder[:-1], self.down, strict=True):
            state = block(state)
            skips.append(state)
            state = down(state)
        state = self.encoder[-1](state)
        for i in reversed(range(len(self.up))):
            # nearest-neighbour growth after the 1x1 convolution: no checkerboard, an eighth of the
            # work
            state = skips[i] + F.interpolate(self.up[i](state), scale_factor=2.0)
            state = self.decoder[i](state)
        head: Tensor = self.head(state)
        return head
