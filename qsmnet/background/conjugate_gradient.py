"""Preconditioned conjugate gradients on volumes."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def conjugate_gradient(
    operator: Operator,
    wanted: Float[Tensor, "x y z"],
    tolerance: float,
    max_iterations: int,
    precondition: Operator = torch.clone,
) -> Float[Tensor, "x y z"]:
    r"""Solve ``operator(x) = wanted`` from zero; one use of both operators an iteration.

    Hestenes & Stiefel 1952, 10.6028/jres.049.044. Ends when the residual, in the norm that the
    preconditioner gives, has fallen by the factor ``tolerance``.

    Parameters
    ----------
    operator
        Symmetric and positive definite.
    precondition
        An approximate inverse, symmetric and positive definite; must return a new tensor.
    """
    x, residual = torch.zeros_like(wanted), wanted.clone()
    conditioned = precondition(residual)
    direction = conditioned.clone()
    size = first = _dot(residual, conditioned)
    for _ in range(max_iterations):
        if size <= first * tolerance**2:
            break
        image = operator(direction)
        step = size / _dot(direction, image)
        x.add_(direction, alpha=step)
        residual.sub_(image, alpha=step)
        conditioned = precondition(residual)
        size, previous = _dot(residual, conditioned), size
        direction.mul_(size / previous).add_(conditioned)
    return x


def _dot(one: Tensor, two: Tensor) -> float:
    return float(torch.dot(one.ravel(), two.ravel()))
