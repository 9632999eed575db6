"""The small U-Net that corrects an estimate: what unrolled and residual networks learn."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsmnet.networks.cells import LEAST_CELLS, folded, padded_to_cells, unfolded

_SLOPE = 0.1


class SmallUNet(nn.Module):
    """3x3x3 convolutions at a few levels; a correction that is zero before training.

    Leaky ReLU of slope 0.1, no normalisation (so that whole volumes behave as patches), 2x2x2
    convolutions on the way down, nearest neighbours on the way up, skips by addition, which is
    cheaper than concatenation. With one level it is a plain residual network.

    Parameters
    ----------
    inputs
        Channels that it is given.
    base
        Channels of the first level; each further level doubles them.
    levels
        At least 1; each after the first halves the grid.
    convolutions
        With a shortcut each; so many at each level on the way down, and as many on the way up.
    widest
        No level has more channels than this; None for no bound.
    fold
        Edge of the cubes of voxels that become channels before the first level, and voxels again
        after it (as the 2-D network FFDNet does, Zhang et al. 2018, 10.1109/TIP.2018.2839891). With
        2 a level of 32 channels costs what one of 11 does on the whole grid, and fewer than 16
        channels leave half of a processor's vector unit idle.

    Raises
    ------
    ValueError
        If a size is not a whole number from 1.
    """

    def __init__(
        self,
        inputs: int,
        base: int,
        levels: int,
        convolutions: int,
        widest: int | None = None,
        fold: int = 1,
    ) -> None:
        super().__init__()
        sizes = {"base": base, "levels": levels, "convolutions": convolutions, "fold": fold}
        sizes |= {} if widest is None else {"widest": widest}
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {size}")
        widths = [min(base * 2**level, widest or base * 2**level) for level in range(levels)]
        self.stem = nn.Conv3d(inputs * fold**3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList([_Level(w, convolutions) for w in widths])
        self.down = nn.ModuleList([nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([nn.Conv3d(b, a, 1) for a, b in pairwise(widths)])
        self.decoder = nn.ModuleList([_Level(w, convolutions) for w in widths[:-1]])
        self.head = nn.Conv3d(widths[0], fold**3, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.fold = fold
        self.multiple = int(fold * 2 ** (levels - 1))

    def forward(self, channels: Tensor) -> Tensor:
        """Correction of one channel, float32, on any grid."""
        x, y, z = channels.shape[-3:]
        padded = padded_to_cells(channels, self.multiple, (LEAST_CELLS, LEAST_CELLS, LEAST_CELLS))
        padded = folded(padded, self.fold).to(memory_format=torch.channels_last_3d)
        state = self.encoder[0](F.leaky_relu(self.stem(padded), _SLOPE, inplace=True))
        skips = []
        for down, level in zip(self.down, self.encoder[1:], strict=True):
            skips.append(state)
            state = level(F.leaky_relu(down(state), _SLOPE, inplace=True))
        for i in reversed(range(len(self.up))):
            # after the 1x1x1 convolution: an eighth of its work
            state = skips[i] + F.interpolate(self.up[i](state), scale_factor=2.0)
            state = self.decoder[i](state)
        head = unfolded(self.head(state), self.fold)
        return head[..., :x, :y, :z].float()


class _Level(nn.Module):
    def __init__(self, width: int, convolutions: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv3d(width, width, 3, padding=1) for _ in range(convolutions)]
        )

    def forward(self, state: Tensor) -> Tensor:
        """Convolutions with a shortcut, a leaky ReLU after each."""
        for convolution in self.convolutions:
            state = F.leaky_relu(state + convolution(state), _SLOPE, inplace=True)
        return state
