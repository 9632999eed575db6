"""The small U-Net that corrects an estimate: what unrolled and residual networks learn."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.1


class SmallUNet(nn.Module):
    """3x3x3 convolutions at a few levels; a correction that is zero before training.

    Leaky ReLU of slope 0.1, no normalisation (so that whole volumes behave as patches), mean of 2
    voxels an axis on the way down, nearest neighbour on the way up, skips by concatenation. With
    one level it is a plain residual network, as LPCNN's and MoDL's.

    Parameters
    ----------
    inputs
        Channels that it is given.
    base
        Channels of the first level; each further level doubles them.
    levels
        At least 1; each after the first halves the grid.
    convolutions
        At each level, once down and once up; all but the first of them have a shortcut.

    Raises
    ------
    ValueError
        If a size is not a whole number from 1.
    """

    def __init__(self, inputs: int, base: int, levels: int, convolutions: int) -> None:
        super().__init__()
        sizes = {"base": base, "levels": levels, "convolutions": convolutions}
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {size}")
        widths = [base * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(
            [_Level(a, b, convolutions) for a, b in pairwise([inputs, *widths])]
        )
        self.decoder = nn.ModuleList([_Level(a + b, a, convolutions) for a, b in pairwise(widths)])
        self.head = nn.Conv3d(base, 1, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.multiple = 2 ** (levels - 1)

    def forward(self, channels: Tensor) -> Tensor:
        """Correction of one channel, float32, on any grid."""
        x, y, z = channels.shape[-3:]
        padding = [p for n in (z, y, x) for p in (0, -n % self.multiple)]
        state = F.pad(channels, padding).to(memory_format=torch.channels_last_3d)
        skips = []
        for level in self.encoder[:-1]:
            skips.append(level(state))
            state = F.avg_pool3d(skips[-1], 2)
        state = self.encoder[-1](state)
        for level, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            state = level(torch.cat([skip, F.interpolate(state, scale_factor=2.0)], dim=1))
        head: Tensor = self.head(state)
        return head[..., :x, :y, :z].float()


class _Level(nn.Module):
    def __init__(self, inputs: int, width: int, convolutions: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, width, 3, padding=1)
        self.others = nn.ModuleList(
            [nn.Conv3d(width, width, 3, padding=1) for _ in range(convolutions - 1)]
        )

    def forward(self, state: Tensor) -> Tensor:
        """Convolutions, a leaky ReLU after each."""
        state = F.leaky_relu(self.first(state), _SLOPE, inplace=True)
        for convolution in self.others:
            state = F.leaky_relu(state + convolution(state), _SLOPE, inplace=True)
        return state
