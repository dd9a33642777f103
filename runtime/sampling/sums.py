"""What is kept of grid noise, from its codes (cells.py): cell means, k, counts beyond thresholds, products of bets' factors."""

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array, Counts
from ..kernels.jit import jit
from .cells import Law

Codes = npt.NDArray[np.int16]

# Coordinates at a time: their counts and products stay in a cache while the rows go by.
COLUMNS = 512


class Ranks:
    """How many rows of codes lie beyond each threshold of the law, by coordinate and sign: as if u were seen itself."""

    def __init__(self, law: Law, d: int) -> None:
        self.law = law
        # By rank, from -len(taus) to len(taus).
        self._ranks = np.zeros((d, 2 * len(law.taus) + 1), dtype=np.int32)

    def add(self, codes: Codes) -> None:
        """Count rows, shape (B, d)."""
        _count(codes, self.law.low, self.law.rank, self._ranks)

    def beyond(self) -> Counts:
        """How many had u_j >= tau and how many -u_j >= tau, shape (2, taus, d)."""
        ranks, count = self._ranks.T.astype(np.int64), len(self.law.taus)
        above, below = ranks[count + 1 :], ranks[:count][::-1]
        return np.stack([side[::-1].cumsum(axis=0)[::-1] for side in (above, below)])


@jit
def look_up(codes: Codes, low: int, table: Array, out: Array) -> None:
    """The codes' values in a table, shape (B, d)."""
    for row in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[row, j] = table[np.int64(codes[row, j]) - low]


@jit
def numbers(codes: Codes, bits: int, out: Array) -> None:
    """The codes' k, shape (B, d)."""
    for row in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[row, j] = codes[row, j] >> bits


@jit
def multiply(
    codes: Codes, rows: npt.NDArray[np.int64], s: Array, low: int, table: Array, beta: Array, least: Array, factors: Array
) -> None:
    """Multiply factors[0, b, j] by max(1 - x, least[b]) and factors[1, b, j] by max(1 + x, least[b]), x = beta[b] s table[code].

    For the given rows of codes, shape (B, d), and s, shape (B,); factors of shape (2, bets, d).
    """
    d, values, products = factors.shape[2], np.empty(COLUMNS), np.empty((2, beta.shape[0], COLUMNS))
    for left in range(0, d, COLUMNS):
        width = min(COLUMNS, d - left)
        products[:, :, :width] = factors[:, :, left : left + width]
        for row in rows:
            for j in range(width):
                values[j] = s[row] * table[np.int64(codes[row, left + j]) - low]
            for bet in range(beta.shape[0]):
                staked, floor = beta[bet], least[bet]
                down, up = products[0, bet], products[1, bet]
                for j in range(width):
                    x = staked * values[j]
                    lower, upper = 1.0 - x, 1.0 + x
                    down[j] *= lower if lower > floor else floor
                    up[j] *= upper if upper > floor else floor
        factors[:, :, left : left + width] = products[:, :, :width]


@jit
def _count(codes: Codes, low: int, rank: npt.NDArray[np.int8], ranks: npt.NDArray[np.int32]) -> None:
    d, zero = ranks.shape[0], ranks.shape[1] // 2
    for left in range(0, d, COLUMNS):
        right = min(left + COLUMNS, d)
        for row in range(codes.shape[0]):
            for j in range(left, right):
                ranks[j, np.int64(rank[np.int64(codes[row, j]) - low]) + zero] += 1
