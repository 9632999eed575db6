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
    start: Float[Tensor, "x y z"] | None = None,
) -> Float[Tensor, "x y z"]:
    """Solve ``apply(x) = target`` for a symmetric operator without negative eigenvalues.

    Parameters
    ----------
    apply
        The operator, called once an iteration, and once for a ``start``.
    target
        Right-hand side.
    max_iterations, tolerance
        Stop when the norm of the residual is below ``tolerance`` times that of ``target``; at most
        this often.
    precondition
        Approximate inverse, symmetric and positive on the range of ``apply``; called once an
        iteration.
    start
        Zero when None.
    """
    residual = target.clone() if start is None else target - apply(start)
    solution = torch.zeros_like(target) if start is None else start.clone()
    enough = tolerance * float(torch.linalg.vector_norm(target))
    direction, before = torch.zeros_like(target), 0.0
    for _ in range(max_iterations):
        if float(torch.linalg.vector_norm(residual)) <= enough:
            break
        nearer = residual if precondition is None else precondition(residual)
        power = _dot(residual, nearer)
        direction.mul_(power / before if before > 0 else 0.0).add_(nearer)
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
