from fractions import Fraction

import numpy as np
import pytest

from certlut.sampling.cells import law
from certlut.sampling.grid import draw
from certlut.sampling.streams import Stream
from certlut.sampling.sums import COLUMNS, Ranks, look_up, numbers

TAUS = (0.5, 1.0, 1.1, 3.0)


@pytest.mark.parametrize("d", [1, 7, COLUMNS, COLUMNS + 3])
def test_counts_and_values_are_those_of_a_plain_loop(d: int) -> None:
    grid, kept = law(Fraction(4), TAUS), Ranks(law(Fraction(4), TAUS), d)
    beyond = np.zeros((2, len(TAUS), d), dtype=np.int64)
    for batch in range(4):
        codes = np.empty((50, d), dtype=np.int16)
        draw(grid, Stream(1, batch, 1), 0, codes)
        for part in (slice(0, 20), slice(20, 50)):
            kept.add(codes[part])
        place = codes.astype(np.int64) - grid.low
        for k in range(len(TAUS)):
            beyond[0, k] += (grid.rank[place] > k).sum(axis=0)
            beyond[1, k] += (grid.rank[place] < -k).sum(axis=0)
        m, k_ = np.empty((2, 50, d))
        look_up(codes, grid.low, grid.mean, m)
        numbers(codes, grid.bits, k_)
        assert np.array_equal(m, grid.mean[place])
        assert np.array_equal(k_, np.floor(codes / 2.0**grid.bits))
    assert np.array_equal(kept.beyond(), beyond)


def test_the_tails_of_a_half_space_are_found() -> None:
    """f = 1{k_0 < 5} at R = 4: all samples against lie beyond 1."""
    grid, n = law(Fraction(4), (1.0, 1.5)), 200_000
    kept, codes, count = Ranks(grid, 3), np.empty((1000, 3), dtype=np.int16), 0
    for batch in range(n // 1000):
        draw(grid, Stream(8, 0, 1), 1000 * batch, codes)
        against = codes[:, 0] >> grid.bits >= 5
        kept.add(codes[against])
        count += int(against.sum())
    tails = kept.beyond()
    assert tails[0, 0, 0] == count
    assert tails[1, :, 0].tolist() == [0, 0]
    # Q(1.5) of all samples; thresholds split the cell from 1.375 to 1.625.
    assert abs(tails[0, 1, 0] / n - 0.0668072) < 5.0 * np.sqrt(0.0668 / n)
