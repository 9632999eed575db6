"""Exponential moving average of weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Average of a network's parameters over the last steps; what is validated and released.

    Parameters
    ----------
    network
        Whose parameters are averaged.
    decay
        Weight of the past at each step; smaller at the start: ``min(decay, (1 + t) / (10 + t))``.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.steps = decay, 0
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the current parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in network.state_dict().items():
            average = self.weights[name].to(value.device)
            self.weights[name] = average
            if value.dtype.is_floating_point:
                average.lerp_(value, 1.0 - decay)
            else:
                average.copy_(value)

    def state(self) -> dict[str, object]:
        """Plain data for a checkpoint."""
        return {"steps": self.steps, "weights": dict(self.weights)}

    def load(self, steps: int, weights: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.steps = steps
        self.weights = {k: v.clone() for k, v in weights.items()}
