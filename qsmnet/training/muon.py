r"""Muon: momentum whose every matrix is made orthogonal, for convolutions.

A convolution's gradient has a few strong directions; an update with all of its singular values
alike moves the others as far. After Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/)
and, for the size of a step, Liu et al. 2025 (arXiv:2502.16982). ``torch.optim.Muon`` takes matrices
alone; here a kernel is the matrix of its outputs by all of its inputs, and what is no matrix has
Adam's steps.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# quintic Newton-Schulz iteration of Jordan et al.: singular values of 0.01 to 1 come within
# 0.7 and 1.2 in five steps
_QUINTIC = (3.4445, -4.7750, 2.0315)
_STEPS = 5
# rms of an orthogonal update, as large as Adam's usually is (Liu et al.)
_RMS = 0.2


class Muon(Optimizer):
    """Muon for kernels and matrices with both sides over ``least``, Adam for the rest.

    Parameters
    ----------
    params
        Of a network.
    lr
        Of both, since the updates are of one size.
    momentum
        Of matrices, with Nesterov's look ahead.
    betas
        Of Adam.
    weight_decay
        Decoupled, of both.
    least
        Shorter side of a matrix up to which Adam has it: first and last layers of few channels.

    Raises
    ------
    ValueError
        If the learning rate is negative, or a decay is not from 0 to 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 1e-4,
        least: int = 8,
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"lr and weight_decay must not be negative: {lr}, {weight_decay}")
        if not all(0 <= each < 1 for each in (momentum, *betas)):
            raise ValueError(f"momentum and betas must lie in [0, 1), got {momentum}, {betas}")
        defaults = {"lr": lr, "momentum": momentum, "betas": tuple(betas)}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "least": least})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        is_matrix = parameter.ndim > 1 and min(_as_matrix(parameter).shape) > group["least"]
        direction = (self._orthogonal if is_matrix else self._adam)(parameter, gradient, group)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction, alpha=-group["lr"])

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average, momentum = state["momentum"], group["momentum"]
        average.lerp_(gradient, 1 - momentum)
        matrix = _as_matrix(gradient.lerp(average, momentum))
        scale = _RMS * math.sqrt(max(matrix.shape))
        update: Tensor = scale * orthogonalised(matrix).reshape(parameter.shape)
        return update

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        update: Tensor = mean / (square.sqrt() + 1e-8)
        return update


def orthogonalised(matrix: Tensor) -> Tensor:
    """Matrix of the same singular vectors, its singular values near 1.

    By Newton-Schulz iteration in float32: a step of a released network is to come out again. Each
    iteration is a polynomial of the Gram matrix, so that all of them work on that small one, and
    the long matrix is multiplied once.
    """
    a, b, c = _QUINTIC
    flat = matrix.shape[0] <= matrix.shape[1]
    x = matrix.float() if flat else matrix.float().T
    x = x / x.norm().clamp_min(1e-12)
    gram = x @ x.T
    unit = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    whole = unit
    for _ in range(_STEPS):
        factor = a * unit + b * gram + c * gram @ gram
        whole = factor @ whole
        gram = factor @ gram @ factor
    x = whole @ x
    result: Tensor = x if flat else x.T
    return result


def _as_matrix(kernel: Tensor) -> Tensor:
    return kernel.reshape(kernel.shape[0], -1)
