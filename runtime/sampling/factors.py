"""Factors of bets on coordinates (bets.py), multiplied up for every bet and sign in one pass over the noise."""

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array
from ..kernels.jit import jit

# Coordinates at a time: their products stay in a cache while the rows go by.
COLUMNS = 512


@jit
def multiply(m: Array, rows: npt.NDArray[np.int64], s: Array, beta: Array, least: Array, factors: Array) -> None:
    """Multiply factors[0, b, j] by max(1 - x, least[b]) and factors[1, b, j] by max(1 + x, least[b]), x = beta[b] s m_j.

    For the given rows of m, shape (B, d), and s, shape (B,); factors of shape (2, bets, d).
    """
    d, values, products = factors.shape[2], np.empty(COLUMNS), np.empty((2, beta.shape[0], COLUMNS))
    for left in range(0, d, COLUMNS):
        width = min(COLUMNS, d - left)
        products[:, :, :width] = factors[:, :, left : left + width]
        for row in rows:
            for j in range(width):
                values[j] = s[row] * m[row, left + j]
            for bet in range(beta.shape[0]):
                staked, floor = beta[bet], least[bet]
                down, up = products[0, bet], products[1, bet]
                for j in range(width):
                    x = staked * values[j]
                    lower, upper = 1.0 - x, 1.0 + x
                    down[j] *= lower if lower > floor else floor
                    up[j] *= upper if upper > floor else floor
        factors[:, :, left : left + width] = products[:, :, :width]
