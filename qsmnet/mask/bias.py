"""The smooth part of a magnitude: what coils add to the tissue."""

import itertools

import numpy as np
import numpy.typing as npt

from qsmnet.mask.morphology import Inside

Array = npt.NDArray[np.float64]

_MOST_VOXELS, _ITERATIONS = 40_000, 10
# a fit says nothing beyond its voxels: there the polynomial stays as it is at their rim, about 2.2
# standard deviations from the middle of a ball, and nowhere leaves a factor of e^1.5
_RIM, _MOST = 2.2, 1.5


def fit_bias(magnitude: Array, inside: Inside, order: int) -> Array:
    r"""Exponential of the polynomial of degree ``order`` that is nearest to log magnitude.

    Least squares with Tukey's weights (zero beyond three robust standard deviations), so that
    vessels, fluid and what else is not most of the tissue do not count. One in the middle.
    """
    places = np.argwhere(inside & (magnitude > 0))
    places = places[:: max(1, len(places) // _MOST_VOXELS)]
    middle, spread = places.mean(0), places.std(0) + 1e-9
    powers = [p for p in itertools.product(range(order + 1), repeat=3) if sum(p) <= order]
    axes = (places - middle) / spread
    terms = np.stack([(axes ** np.array(power)).prod(-1) for power in powers], -1)
    coefficients = _robust_fit(terms, np.log(magnitude[tuple(places.T)]))
    x, y, z = (
        np.clip((np.arange(n) - m) / s, -_RIM, _RIM)
        for n, m, s in zip(magnitude.shape, middle, spread, strict=True)
    )
    logarithm = np.zeros(magnitude.shape)
    for (i, j, k), coefficient in zip(powers[1:], coefficients[1:], strict=True):
        logarithm += coefficient * (x**i)[:, None, None] * (y**j)[:, None] * z**k
    return np.exp(np.clip(logarithm, -_MOST, _MOST))


def _robust_fit(terms: Array, values: Array) -> Array:
    weight = np.ones_like(values)
    coefficients: Array = np.zeros(terms.shape[1])
    for _ in range(_ITERATIONS):
        root = np.sqrt(weight)
        solution = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
        coefficients = solution.astype(np.float64)
        residual = values - terms @ coefficients
        spread = 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) + 1e-9
        weight = np.clip(1 - (residual / (3 * spread)) ** 2, 0, None) ** 2
    return coefficients
