from fractions import Fraction

import numpy as np
import pytest

from certlut.sampling.cells import law
from certlut.sampling.grid import Stream, draw
from certlut.sampling.sums import COLUMNS, Sums

TAUS = (0.5, 1.0, 1.1, 3.0)


@pytest.mark.parametrize("d", [1, 7, COLUMNS, COLUMNS + 3])
def test_sums_and_tails_are_those_of_a_plain_loop(d: int) -> None:
    grid, rng = law(Fraction(4), TAUS), np.random.default_rng(d)
    tables = np.stack([grid.mean, grid.mean**2, rng.random(len(grid.mean))], axis=1)
    kept, plain = Sums(grid, d, tables), Sums(grid, d)
    sums, tails = np.zeros((d, 3)), np.zeros((2, len(TAUS), d), dtype=np.int64)
    for batch in range(4):
        codes, against = np.empty((50, d), dtype=np.int16), rng.random(50) < (0.0, 0.1, 0.9, 1.0)[batch]
        draw(grid, Stream(1, batch, 1), 0, codes)
        for part in (slice(0, 20), slice(20, 50)):
            kept.add(codes[part], against[part])
            plain.add(codes[part], against[part])
        place = codes[against].astype(np.int64) - grid.low
        sums += tables[place].sum(axis=0)
        # The parts of u itself: the lower edge of each, by the order of its code.
        for k in range(len(TAUS)):
            tails[0, k] += (grid.rank[place] > k).sum(axis=0)
            tails[1, k] += (grid.rank[place] < -k).sum(axis=0)
    assert np.allclose(kept.sums, sums, rtol=0.0, atol=1e-12)
    assert np.array_equal(plain.sums[:, 0], kept.sums[:, 0])
    assert np.array_equal(kept.tails(), tails)
    assert np.array_equal(plain.tails(), tails)


def test_the_gradient_of_a_half_space_and_its_tails_are_found() -> None:
    """f = 1{k_0 < 5} at R = 4: y_0 = -phi(9/8), and all samples against lie beyond 1."""
    grid, n = law(Fraction(4), (1.0, 1.5)), 200_000
    sums, codes, count = Sums(grid, 3), np.empty((1000, 3), dtype=np.int16), 0
    for batch in range(n // 1000):
        draw(grid, Stream(8, 0, 1), 1000 * batch, codes)
        against = codes[:, 0] >> grid.bits >= 5
        sums.add(codes, against)
        count += int(against.sum())
    y = -sums.sums[:, 0] / n
    assert abs(y[0] + np.exp(-0.5 * 1.125**2) / np.sqrt(2.0 * np.pi)) < 5.0 * np.sqrt(0.25 / n)
    assert np.abs(y[1:]).max() < 5.0 * np.sqrt(0.2 / n)
    tails = sums.tails()
    assert tails[0, 0, 0] == count
    assert tails[1, :, 0].tolist() == [0, 0]
    # Q(1.5) of all samples; thresholds split the cell from 1.375 to 1.625.
    assert abs(tails[0, 1, 0] / n - 0.0668072) < 5.0 * np.sqrt(0.0668 / n)


def test_tables_of_another_law_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tables of shape \(7, 2\): expected \(75, M\)"):
        Sums(law(Fraction(4)), 3, np.zeros((7, 2)))
