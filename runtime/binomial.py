"""Clopper-Pearson bounds of a probability from votes, vectorised, rounded outward."""

import math

import numpy as np
import numpy.typing as npt
from scipy.special import betainccinv, betaincinv

Array = npt.NDArray[np.float64]


def lower_probability(count: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Array:
    """Clopper-Pearson, of arrays that broadcast: P(result > q) <= alpha. Accurate relative to 1 - q, and rounded down."""
    count, n = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    some = count > 0
    # The upper bound of 1 - q from the n - count votes against.
    against = betainccinv(np.where(some, n - count + 1.0, 1.0), np.where(some, count, 1.0), alpha)
    return np.asarray(np.where(some, np.maximum(1.0 - against * (1.0 + 1e-10) - 1e-15, 0.0), 0.0), dtype=np.float64)


def upper_probability(count: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Array:
    """Clopper-Pearson, of arrays that broadcast: P(result < q) <= alpha, rounded up."""
    count, n = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    some = count < n
    value = 1.0 - betaincinv(np.where(some, n - count, 1.0), np.where(some, count + 1.0, 1.0), alpha)
    return np.asarray(np.where(some, np.minimum(value * (1.0 + 1e-10) + 1e-15, 1.0), 1.0), dtype=np.float64)


def least_n(alpha: float) -> int:
    """The least n whose unanimous vote proves q > 1/2 at level alpha: alpha^(1/n) > 1/2."""
    return math.floor(math.log(1.0 / alpha) / math.log(2.0)) + 1
