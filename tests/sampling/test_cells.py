"""The law on the grid against 50-digit arithmetic, and what the estimator's bounds assume of cell means."""

import math
from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest

from certlut.sampling.bets import REACH, TAIL
from certlut.sampling.cells import OPEN, TOTAL, Law, law

RATIOS = {
    "sigma 1, step 1": Fraction(1),
    "sigma 0.25, step 1/16": Fraction(4),
    "sigma 0.12, step 1/255": 255 * Fraction(0.12),
    "sigma 0.5, step 1/255": Fraction(255, 2),
}
TAUS: tuple[tuple[float, ...], ...] = ((), (0.5, 0.6, 1.0, 1.5, 2.0, 3.5, 9.7))


@pytest.fixture(params=RATIOS.values(), ids=RATIOS.keys())
def ratio(request: pytest.FixtureRequest) -> Fraction:
    value: Fraction = request.param
    return value


def _bounds(grid: Law) -> list[tuple[mpmath.mpf, mpmath.mpf]]:
    """(lo, hi) of every part, from the definition of a cell and the thresholds."""
    cells = int(grid.codes[-1]) >> grid.bits
    inner = {Fraction(2 * k + 1, 2) / grid.ratio for k in range(-cells - 1, cells + 1)}
    inner |= {sign * Fraction(tau) for tau in grid.taus for sign in (-1, 1)}
    end = Fraction(2 * cells + 1, 2) / grid.ratio
    edges = [mpmath.mpf(e.numerator) / e.denominator for e in sorted(e for e in inner if abs(e) <= end)]
    return list(pairwise(edges))


def _probability(lo: mpmath.mpf, hi: mpmath.mpf) -> mpmath.mpf:
    """P(lo < u < hi), from the tail on its side."""
    return mpmath.ncdf(-lo) - mpmath.ncdf(-hi) if lo > 0 else mpmath.ncdf(hi) - mpmath.ncdf(lo)


@pytest.mark.parametrize("taus", TAUS)
def test_every_weight_is_within_one_unit_and_they_sum_to_all(ratio: Fraction, taus: tuple[float, ...]) -> None:
    grid = law(ratio, taus)
    weights = grid.weights.tolist()
    assert sum(weights) == TOTAL
    assert weights == weights[::-1]
    with mpmath.workdps(50):
        exact = [TOTAL * _probability(lo, hi) for lo, hi in _bounds(grid)]
        # A threshold so far out that nothing is drawn beyond it makes no part.
        assert len(exact) - len(weights) in (0, 2)
        gone = (len(exact) - len(weights)) // 2
        exact = exact[gone : len(exact) - gone]
        off = [weight - value for weight, value in zip(weights, exact, strict=True)]
        assert max(map(abs, off)) <= 1
        variation = (mpmath.fsum(map(abs, off)) + (TOTAL - mpmath.fsum(exact))) / (2 * TOTAL)
        assert variation <= grid.variation <= variation * (1 + 1e-9)
    assert grid.variation <= len(weights) / TOTAL


def test_no_part_is_missing_where_a_draw_could_fall(ratio: Fraction) -> None:
    grid = law(ratio)
    assert np.array_equal(grid.codes, np.arange(grid.low, -grid.low + 1))
    with mpmath.workdps(50):
        end = (mpmath.mpf(int(grid.codes[-1])) + 0.5) * ratio.denominator / ratio.numerator
        assert TOTAL * mpmath.ncdf(-end) < 0.5
        assert TOTAL * mpmath.ncdf(-end + mpmath.mpf(ratio.denominator) / ratio.numerator) >= 0.5


@pytest.mark.parametrize("taus", TAUS)
def test_means_are_those_of_the_cells_rounded_once(ratio: Fraction, taus: tuple[float, ...]) -> None:
    grid = law(ratio, taus)
    with mpmath.workdps(50):
        for code in grid.codes.tolist():
            k = code >> grid.bits
            lo, hi = ((mpmath.mpf(2 * k + side) / 2) * ratio.denominator / ratio.numerator for side in (-1, 1))
            mean = (mpmath.npdf(lo) - mpmath.npdf(hi)) / _probability(lo, hi)
            assert grid.mean[code - grid.low] == float(mean)


def test_a_threshold_is_met_by_whole_parts_with_the_right_frequency(ratio: Fraction) -> None:
    grid = law(ratio, TAUS[1])
    ranks = grid.rank[grid.codes.astype(np.int64) - grid.low].tolist()
    assert ranks == [-rank for rank in reversed(ranks)]
    assert ranks == sorted(ranks)
    for place, tau in enumerate(grid.taus):
        beyond = sum(weight for weight, rank in zip(grid.weights.tolist(), ranks, strict=True) if rank > place)
        with mpmath.workdps(50):
            assert abs(beyond - TOTAL * mpmath.ncdf(-mpmath.mpf(tau))) <= 0.5


def test_thresholds_split_cells_and_change_no_cell(ratio: Fraction) -> None:
    plain, split = law(ratio), law(ratio, TAUS[1])
    cells: dict[int, int] = {}
    for code, weight in zip(split.codes.tolist(), split.weights.tolist(), strict=True):
        cells[code >> split.bits] = cells.get(code >> split.bits, 0) + weight
    assert cells == dict(zip(plain.codes.tolist(), plain.weights.tolist(), strict=True))
    assert (plain.bits, len(plain.mean)) == (0, len(plain.codes))
    # A threshold on an edge splits nothing.
    assert len(law(Fraction(4), (0.875, 1.125)).codes) == len(law(Fraction(4)).codes)


@pytest.mark.parametrize("taus", TAUS)
def test_the_guide_and_the_edges_give_the_part_that_the_weights_say(ratio: Fraction, taus: tuple[float, ...]) -> None:
    grid = law(ratio, taus)
    edges, total = [], 0
    for weight in grid.weights.tolist()[:-1]:
        total += weight
        edges.append(total)
    assert edges == grid.edges.tolist()
    for lead in (0, 1, 2, 777, 2**15 - 1, 2**15, 50_000, 2**16 - 2, 2**16 - 1, *(edge >> 48 for edge in edges[::7])):
        low, high = (bisect_right(edges, r) for r in (lead << 48, (lead << 48) + 2**48 - 1))
        assert grid.guide[lead] == (grid.codes[low] if low == high else OPEN)
        assert (grid.first[lead], grid.first[lead + 1] - high in (0, 1)) == (low, True)
    assert (grid.guide == OPEN).sum() <= len(edges)


def test_f_is_averaged_by_cell_means_as_by_the_noise_itself(ratio: Fraction) -> None:
    """E[m f] = E[u f], for f = 1{k in a set}: E[u f] is a sum of differences of phi over the set's intervals."""
    grid = law(ratio)
    rng = np.random.default_rng(4)
    for _ in range(5):
        chosen = rng.random(len(grid.codes)) < 0.5
        with mpmath.workdps(40):
            expected = mpmath.fsum(
                mpmath.npdf(lo) - mpmath.npdf(hi) for (lo, hi), f in zip(_bounds(grid), chosen, strict=True) if f
            )
        found = math.fsum((grid.mean * grid.weights * chosen / TOTAL).tolist())
        assert abs(found - float(expected)) < 1e-15


def test_what_a_bet_clips_of_cell_means_is_within_its_allowance(ratio: Fraction) -> None:
    grid = law(ratio)
    clipped = math.fsum((np.maximum(np.abs(grid.mean) - REACH, 0.0) * grid.weights / TOTAL).tolist())
    assert clipped <= TAIL
    # Along a diagonal of two coordinates too: the mean of a convex function of v.u cannot grow.
    m, p = grid.mean, grid.weights / TOTAL
    few = slice(None, None, max(1, len(m) // 300))
    if len(m) < 300:
        both = np.abs(m[few, None] + m[None, few]) / math.sqrt(2.0)
        assert (np.maximum(both - REACH, 0.0) * p[:, None] * p[None, :]).sum() <= TAIL


@pytest.mark.parametrize("lam", [-2.0, -0.3, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("b", [0.5, 0.9, 1.0])
def test_exponents_of_cell_means_are_at_most_those_of_the_noise(ratio: Fraction, lam: float, b: float) -> None:
    """E exp(lam m (f - b)) <= E exp(lam u (f - b)): what Chernoff bounds rest on; and they come near for a fine grid."""
    grid = law(ratio)
    f = np.random.default_rng(2).random(len(grid.codes)) < 0.9
    ours = math.fsum((np.exp(lam * grid.mean * (f - b)) * grid.weights / TOTAL).tolist())
    ideal = 0.0
    for (lo, hi), vote in zip(_bounds(grid), f.tolist(), strict=True):
        c = mpmath.mpf(lam) * (vote - b)
        ideal += float(mpmath.exp(c * c / 2) * _probability(lo - c, hi - c))
    assert ours <= ideal * (1 + 1e-12)
    assert ours >= ideal * (1 - lam * lam / (8.0 * float(ratio) ** 2))


def test_noise_within_a_cell_is_no_wilder_than_uniform() -> None:
    """log E exp(s (u - m)) <= s^2 / (24 R^2) in every cell: what a threshold along other directions is moved by."""
    for value in (Fraction(1), Fraction(4)):
        grid, r = law(value), float(value)
        for k in range(0, int(4 * r) + 1):
            lo, hi = (mpmath.mpf(2 * k + side) / (2 * r) for side in (-1, 1))
            for s in (-9.0, -1.0, -0.1, 0.1, 1.0, 9.0):
                tilted = mpmath.exp(mpmath.mpf(s) ** 2 / 2) * _probability(lo - s, hi - s) / _probability(lo, hi)
                assert mpmath.log(tilted) - s * grid.mean[k - grid.low] <= s * s / (24 * r * r) + 1e-12


@pytest.mark.parametrize(
    ("ratio", "taus", "message"),
    [
        (Fraction(99, 100), (), "sigma / grid_step = 0.99: expected 1 to 1750; take a finer grid"),
        (Fraction(1751), (), "1751: expected 1 to 1750; take a coarser grid"),
        (Fraction(300), tuple(2.0 + i / 2**15 for i in range(9)), "300 with 9 taus: more parts than 16 bits"),
        (Fraction(4), (1.0, 0.5), "positive finite numbers, ascending"),
        (Fraction(4), (0.0, 0.5), "positive finite numbers, ascending"),
        (Fraction(4), (0.5, math.nan), "positive finite numbers, ascending"),
        (Fraction(4), (0.5, math.inf), "positive finite numbers, ascending"),
    ],
)
def test_what_no_law_is_made_of(ratio: Fraction, taus: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        law(ratio, taus)


def test_the_widest_law_fits_its_codes() -> None:
    grid = law(Fraction(1750))
    assert grid.codes[0] > OPEN
    assert sum(grid.weights.tolist()) == TOTAL
