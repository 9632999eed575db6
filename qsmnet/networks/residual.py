"""The block that the project's own networks are made of."""

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with a shortcut, a leaky ReLU before each; no normalisation.

    Parameters
    ----------
    width
        Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        """Leaky-ReLU before each convolution, and a shortcut."""
        hidden = self.first(F.leaky_relu(state, 0.1))
        result: Tensor = state + self.second(F.leaky_relu(hidden, 0.1))
        return result
