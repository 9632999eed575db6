"""The best of a grid of values, with fewer of them tried."""

import math
from collections.abc import Sequence


def next_value(errors: Sequence[float | None]) -> int | None:
    """Which value of a grid to try next: from the middle downhill, until both neighbours are worse.

    The best of all if the error has one minimum along the grid, as it has along the strength of a
    regularisation.

    Parameters
    ----------
    errors
        Of every value, in the grid's order; None where it is not tried yet, infinite where it
        failed, which says nothing of its neighbours.

    Returns
    -------
    Its position; None when the best is found, or the grid is empty.
    """
    tried = [i for i, error in enumerate(errors) if error is not None]
    if not tried:
        return (len(errors) - 1) // 2 if errors else None
    known = [math.inf if error is None else error for error in errors]
    best = min(tried, key=known.__getitem__)
    for way in (-1, 1):
        neighbour = best + way
        while 0 <= neighbour < len(errors) and errors[neighbour] == math.inf:
            neighbour += way
        if 0 <= neighbour < len(errors) and errors[neighbour] is None:
            return neighbour
    return None
