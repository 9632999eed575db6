"""Preconditioned conjugate gradients (Hestenes & Stiefel 1952, 10.6028/jres.049.044)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Operator = Callable[[Float[Tensor, "x y z"]], Float[Tensor, "x y z"]]


def conjugate_gradient(
    apply: Operator,
    target: Float[Tensor, "x y z"],
    max_iterations: int,
    tolerance: float = 0.0,
    precondition: Operator | None = None,
) -> Float[Tensor, "x y z"]:
    """Solve ``apply(x) = target`` from zero; one use of both operators an iteration.

    Parameters
    ----------
    apply
        Symmetric, without negative eigenvalues.
    target
        Right-hand side.
    max_iterations, tolerance
        Stop when the residual, in the norm that the preconditioner gives, has fallen by the factor
        ``tolerance``; at most this often.
    precondition
        Approximate inverse, symmetric and positive on the range of ``apply``.
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction, first, before = torch.zeros_like(target), 0.0, 0.0
    for _ in range(max_iterations):
        nearer = residual if precondition is None else precondition(residual)
        power = _dot(residual, nearer)
        first = first or power
        if power <= first * tolerance**2:
            break
        direction.mul_(power / before if before else 0.0).add_(nearer)
        image = apply(direction)
        curvature = _dot(direction, image)
        if not curvature > 0:  # nothing left that the operator sees
            break
        solution.add_(direction, alpha=power / curvature)
        residual.sub_(image, alpha=power / curvature)
        before = power
    return solution


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.ravel(), b.ravel()))
