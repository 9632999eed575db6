"""Thresholds that come from the data."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def robust_threshold(magnitude: Array) -> float:
    """Threshold between noise and signal, in the unit of the magnitude: see `MagnitudeMask`."""
    q15, q80, q99 = np.quantile(magnitude, [0.15, 0.80, 0.99])
    high = magnitude[(magnitude >= q80) & (magnitude <= q99)].mean()
    noise = magnitude[magnitude <= q15].mean()
    if noise > high / 10:  # the object fills the grid: the darkest voxels are object, not noise
        noise = 0.0
    return float(max(5 * noise, high / 5))


def otsu_threshold(values: Array, bins: int = 256) -> float:
    r"""Split that leaves the least variance within the two classes (Otsu 1979).

    .. math:: \max_t \; p_0(t)\, p_1(t)\, (\mu_0(t) - \mu_1(t))^2

    over the edges of ``bins`` equal bins from the least to the largest value
    (10.1109/TSMC.1979.4310076); of a plateau (an empty stretch between two classes) the middle.
    """
    counts, edges = np.histogram(values, bins=bins)
    middles, below = (edges[:-1] + edges[1:]) / 2, counts.cumsum()[:-1]
    above = counts.sum() - below
    first, total = (counts * middles).cumsum()[:-1], (counts * middles).sum()
    gap = first / np.maximum(below, 1) - (total - first) / np.maximum(above, 1)
    between = below * above * gap**2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1:-1][best].mean())
