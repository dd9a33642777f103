"""Clopper-Pearson bounds of a probability from votes, vectorised, rounded outward."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, betainccinv, betaincinv

from ..kernels.arrays import Array

# Allowances, for the inverse functions next to 0 and 1 and for 1 - p.
SLACK, ROUNDING = 8e-16, 2e-16


def lower_probability(count: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Array:
    """Clopper-Pearson, of arrays that broadcast: P(result > q) <= alpha. Accurate relative to 1 - q, and rounded down."""
    count, n, place = _distinct(count, n)
    some = count > 0
    # The upper bound of 1 - q from the n - count votes against.
    a, b = np.where(some, n - count + 1.0, 1.0), np.where(some, count, 1.0)
    against = np.minimum(betainccinv(a, b, alpha) * (1.0 + 1e-10) + SLACK, 1.0)
    against = _outward(betaincc, a, b, against, alpha, 1.0)
    return np.asarray(np.where(some, np.maximum(1.0 - against - ROUNDING, 0.0), 0.0)[place], dtype=np.float64)


def upper_probability(count: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Array:
    """Clopper-Pearson, of arrays that broadcast: P(result < q) <= alpha, rounded up."""
    count, n, place = _distinct(count, n)
    some = count < n
    a, b = np.where(some, n - count, 1.0), np.where(some, count + 1.0, 1.0)
    against = betaincinv(a, b, alpha)
    against = np.maximum(against - 1e-10 * np.minimum(against, 1.0 - against) - SLACK, 0.0)
    against = _outward(betainc, a, b, against, alpha, 0.0)
    return np.asarray(np.where(some, np.minimum(1.0 - against + ROUNDING, 1.0), 1.0)[place], dtype=np.float64)


def _distinct(count: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Array, Array, npt.NDArray[np.intp]]:
    """The different pairs, and each one's place among them: the inputs of a data set share n, and many their votes."""
    pairs, place = np.unique(np.asarray(count, np.float64) + 1j * np.asarray(n, np.float64), return_inverse=True)
    return pairs.real, pairs.imag, place


def _outward(tail: Callable[[Array, Array, Array], Array], a: Array, b: Array, p: Array, alpha: float, end: float) -> Array:
    """`p` where tail(a, b, p) <= alpha, as it should be; else bisected between it and `end`.

    The inverse functions are far off for some arguments (a = 1000 with a large b; alpha below 1e-240), the tails are not.
    """
    p, a, b = np.broadcast_arrays(p, a, b)
    wrong = ~(tail(a, b, p) <= alpha)
    if wrong.any():
        p, a, b = p.copy(), a[wrong], b[wrong]
        low, high = np.nan_to_num(p[wrong], nan=1.0 - end), np.full(a.shape, end)
        for _ in range(1100):
            middle = 0.5 * (low + high)
            good = tail(a, b, middle) <= alpha
            low, high = np.where(good, low, middle), np.where(good, middle, high)
            if (np.abs(high - low) <= 1e-12 * high).all():
                break
        p[wrong] = high * (1.0 + (1e-10 if end else -1e-10))
    return p


def least_n(alpha: float) -> int:
    """The least n whose unanimous vote proves q > 1/2 at level alpha: alpha^(1/n) > 1/2."""
    return math.floor(math.log(1.0 / alpha) / math.log(2.0)) + 1
