"""Conjugate gradients against a direct solution."""

import torch

from qsmnet.conjugate_gradient import conjugate_gradient

SHAPE = (3, 4, 5)


def system() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = 60
    factor = torch.randn((size, size), dtype=torch.float64, generator=generator)
    matrix = factor @ factor.T + torch.diag(torch.linspace(1, 300, size, dtype=torch.float64))
    return matrix, torch.randn(SHAPE, dtype=torch.float64, generator=generator)


def operator(matrix: torch.Tensor):
    return lambda x: (matrix @ x.ravel()).reshape(SHAPE)


def test_solves() -> None:
    matrix, target = system()
    expected = torch.linalg.solve(matrix, target.ravel()).reshape(SHAPE)
    found = conjugate_gradient(operator(matrix), target, 200, 1e-12)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_tolerance_and_limit_stop_it() -> None:
    matrix, target = system()
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return operator(matrix)(x)

    found = conjugate_gradient(counted, target, 200, 1e-2)
    residual = target - operator(matrix)(found)
    assert residual.norm() <= 1.001e-2 * target.norm()
    assert len(calls) < 40
    calls.clear()
    conjugate_gradient(counted, target, 3)
    assert len(calls) == 3


def test_preconditioner_saves_iterations() -> None:
    """With the inverse itself one iteration is enough; with the diagonal fewer than without."""
    matrix, target = system()
    exact = torch.linalg.inv(matrix)
    at_once = conjugate_gradient(operator(matrix), target, 1, precondition=operator(exact))
    torch.testing.assert_close(at_once, operator(exact)(target), rtol=0, atol=1e-9)
    stiff = matrix + torch.diag(torch.logspace(0, 5, 60, dtype=torch.float64))
    diagonal = 1 / stiff.diagonal().reshape(SHAPE)
    plain = conjugate_gradient(operator(stiff), target, 12)
    better = conjugate_gradient(operator(stiff), target, 12, precondition=lambda r: r * diagonal)
    left = [float((target - operator(stiff)(x)).norm()) for x in (plain, better)]
    assert left[1] < 0.1 * left[0]


def test_nothing_to_solve() -> None:
    zero = torch.zeros(SHAPE)
    assert not conjugate_gradient(lambda x: x, zero, 5).any()
    # an operator that sees nothing of the target
    assert not conjugate_gradient(torch.zeros_like, torch.ones(SHAPE), 5).any()
