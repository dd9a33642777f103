"""What is kept of grid noise: sums of functions of k over the samples against the class, and counts beyond thresholds.

With h = 1 for a sample against and f = 1 - h, the gradient is y = E[u f] = -E[m h], m(k) = E[u | k]: samples for the class are not
touched. So it is with any function of one coordinate's k that stands in a table, such as the logarithms of a bet with a constant
prediction (docs/noise.md): several share a pass, and no logarithm is taken for a sample.
"""

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array
from ..kernels.jit import jit
from .cells import Law

Codes = npt.NDArray[np.int16]

# Coordinates at a time: their sums and counts stay in a cache while the rows go by.
COLUMNS = 512


class Sums:
    """Sums over the rows against the class of tables of their codes, and tail counts, for one input.

    Args:
        law: of the noise; its thresholds are those counted.
        d: numbers of an input.
        tables: float64, shape (codes, M): values of M functions at every code, from law.low on; by default one, `law.mean`.
    """

    def __init__(self, law: Law, d: int, tables: Array | None = None) -> None:
        self.law = law
        self.tables = np.ascontiguousarray(law.mean[:, None] if tables is None else tables)
        if len(self.tables) != len(law.mean):
            raise ValueError(f"tables of shape {self.tables.shape}: expected ({len(law.mean)}, M)")
        self.sums: Array = np.zeros((d, self.tables.shape[1]))
        """Of each coordinate, shape (d, M)."""
        # By rank, from -len(taus) to len(taus).
        self._ranks = np.zeros((d, 2 * len(law.taus) + 1), dtype=np.int32)

    def add(self, codes: Codes, against: npt.NDArray[np.bool_]) -> None:
        """Count rows of codes, shape (B, d), of which those with `against`, shape (B,), are looked at."""
        rows = np.flatnonzero(against)
        _add(codes, rows, self.law.low, self.tables, self.sums)
        if self.law.taus:
            _count(codes, rows, self.law.low, self.law.rank, self._ranks)

    def tails(self) -> npt.NDArray[np.int64]:
        """How many had u_j >= tau and how many -u_j >= tau, shape (2, taus, d): each as if u were seen itself."""
        ranks, count = self._ranks.T.astype(np.int64), len(self.law.taus)
        above, below = ranks[count + 1 :], ranks[:count][::-1]
        return np.stack([side[::-1].cumsum(axis=0)[::-1] for side in (above, below)])


@jit
def _add(codes: Codes, rows: npt.NDArray[np.int64], low: int, tables: Array, sums: Array) -> None:
    d, count = sums.shape
    for left in range(0, d, COLUMNS):
        right = min(left + COLUMNS, d)
        for row in rows:
            for j in range(left, right):
                place = np.int64(codes[row, j]) - low
                for m in range(count):
                    sums[j, m] += tables[place, m]


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
    d, values = factors.shape[2], np.empty(COLUMNS)
    for left in range(0, d, COLUMNS):
        width = min(COLUMNS, d - left)
        for row in rows:
            for j in range(width):
                values[j] = s[row] * table[np.int64(codes[row, left + j]) - low]
            for bet in range(beta.shape[0]):
                staked, floor = beta[bet], least[bet]
                down, up = factors[0, bet, left : left + width], factors[1, bet, left : left + width]
                for j in range(width):
                    x = staked * values[j]
                    lower, upper = 1.0 - x, 1.0 + x
                    down[j] *= lower if lower > floor else floor
                    up[j] *= upper if upper > floor else floor


@jit
def _count(codes: Codes, rows: npt.NDArray[np.int64], low: int, rank: npt.NDArray[np.int8], ranks: npt.NDArray[np.int32]) -> None:
    d, zero = ranks.shape[0], ranks.shape[1] // 2
    for left in range(0, d, COLUMNS):
        right = min(left + COLUMNS, d)
        for row in rows:
            for j in range(left, right):
                ranks[j, np.int64(rank[np.int64(codes[row, j]) - low]) + zero] += 1
