"""What is kept of grid noise, from its codes (cells.py): cell means, k, counts beyond thresholds."""

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array, Counts
from ..kernels.jit import jit
from .cells import Law

Codes = npt.NDArray[np.int16]

# Coordinates at a time: their counts stay in a cache while the rows go by.
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
def _count(codes: Codes, low: int, rank: npt.NDArray[np.int8], ranks: npt.NDArray[np.int32]) -> None:
    d, zero = ranks.shape[0], ranks.shape[1] // 2
    for left in range(0, d, COLUMNS):
        right = min(left + COLUMNS, d)
        for row in range(codes.shape[0]):
            for j in range(left, right):
                ranks[j, np.int64(rank[np.int64(codes[row, j]) - low]) + zero] += 1
