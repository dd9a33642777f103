"""Factors of bets on coordinates (bets.py), multiplied up in one pass over the noise instead of one for every bet and sign.

A product is taken factor by factor in the order of the rows: to the last bit what torch's `prod` along the rows gives.
"""

import numpy as np

from ..kernels.arrays import Array
from ..kernels.jit import jit

# Coordinates at a time: their products stay in a cache while the rows go by.
COLUMNS = 512


@jit
def multiply_up(x: Array, height: int, beta: Array, least: Array, out: Array) -> None:
    """Products over rows g, g + G, ... of x, shape (height G, d), into out[:, b, g], shape (2, bets, G, d).

    Factors are max(1 - beta[b] x, least[b]), then max(1 + beta[b] x, least[b]).
    """
    groups, d, bets = out.shape[2], x.shape[1], beta.shape[0]
    products = np.empty((2, bets, COLUMNS))
    for g in range(groups):
        for left in range(0, d, COLUMNS):
            width = min(COLUMNS, d - left)
            products[:] = 1.0
            for place in range(height):
                values = x[place * groups + g, left : left + width]
                for bet in range(bets):
                    staked, floor = beta[bet], least[bet]
                    down, up = products[0, bet], products[1, bet]
                    for j in range(width):
                        scaled = values[j] * staked
                        lower, upper = 1.0 - scaled, 1.0 + scaled
                        down[j] *= lower if lower > floor else floor
                        up[j] *= upper if upper > floor else floor
            out[:, :, g, left : left + width] = products[:, :, :width]
