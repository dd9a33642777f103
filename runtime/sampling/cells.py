"""The law of Gaussian noise on a grid: k = round(sigma u / step), u standard normal, as integer weights that sum to 2^64.

With R = sigma / step the cell of k is (k - 1/2) / R <= u < (k + 1/2) / R, and P(k) = Phi((k + 1/2) / R) - Phi((k - 1/2) / R). The
vote f of a network behind rounding to the grid sees k alone, so E[u f] = E[m f], m(k) = E[u | k] = (phi(lo) - phi(hi)) / P(k).
A cell that holds a threshold tau or -tau is split there: parts, not cells, are drawn, and counts of {u >= tau} are exact ones.

Rounding. Q(t) = P(u > t) = 1/2 - phi(t) (t + t^3/3 + t^5/15 + ...), all terms positive, in decimals whose every operation is
correctly rounded to 60 digits: below t = 10 fewer than 500 terms, so the error is below 1e-55. (The standard library's decimals are
exact enough, need no package, and take 0.3 s for 2,300 edges.) An edge t > 0 gets the count A(t) = round(2^64 Q(t)), a part the
difference of two counts: the sum is 2^64, each weight within 1 of 2^64 P; where A = 0, Q < 2^-65, parts end. Half the sum of all
deviations, the cut tails among them, is the total variation of one draw.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

TOTAL = 2**64
# Leading bits of the 64 that settle nearly every draw; the other 48 are looked at where an edge lies among what they leave open.
LEADING = 16
# A guide's entry where they do not settle it: below every code.
OPEN = -(2**15)
MAX_RATIO, MAX_TAUS = 1750, 100

_PRECISE = Context(prec=60)
_TWO = Decimal(2)
# sqrt(2 pi)
_ROOT = Decimal("2.50662827463100050241576528481104525300698674060993831662992357634229365460784197494659583837805726611")

Tail = Callable[[Fraction], tuple[Decimal, Decimal]]


@dataclass(frozen=True, eq=False)
class Law:
    """The parts, in ascending order of u, each with a 16-bit code; the tables `mean` and `rank` are indexed by code - low."""

    ratio: Fraction
    """sigma / step."""
    taus: tuple[float, ...]
    """Thresholds, ascending, in sigma = 1 units."""
    bits: int
    """A code is k 2^bits + the place of the part within its cell, from below: k = code >> bits."""
    low: int
    """The least code of the lowest cell."""
    codes: npt.NDArray[np.int16]
    """Shape (parts,)."""
    weights: npt.NDArray[np.uint64]
    """Shape (parts,): 2^64 times the probability, to within 1."""
    edges: npt.NDArray[np.uint64]
    """Shape (parts - 1,): 64 random bits r fall in the part whose place is the number of edges <= r."""
    mean: npt.NDArray[np.float64]
    """E[u | k], sigma = 1: rounded once, by at most 2^-53 of itself."""
    rank: npt.NDArray[np.int8]
    """How many thresholds have u >= tau all over the part; minus how many have -u >= tau."""
    variation: float
    """Total variation distance of one draw from the ideal law, rounded up: of n d draws, at most n d times this."""
    guide: npt.NDArray[np.int16]
    """Shape (2^LEADING,): the code that the leading bits settle, or OPEN."""
    first: npt.NDArray[np.uint16]
    """Shape (2^LEADING + 1,): edges at or below the least r of given leading bits; at the end all of them."""


@lru_cache(maxsize=16)
def law(ratio: Fraction, taus: tuple[float, ...] = ()) -> Law:
    """The law of round(ratio u), with cells split at +-tau; takes less than a second for 8-bit images.

    Args:
        ratio: sigma / step, exactly: Fraction(sigma) / step.
        taus: positive thresholds, ascending, in sigma = 1 units, meant at their exact binary values.

    Raises:
        ValueError: noise of less than a step; more parts than 16 bits can name; thresholds not positive and ascending.
    """
    if not 1 <= ratio <= MAX_RATIO:
        hint = "a finer grid, which holds this one," if ratio < 1 else "a coarser grid"
        raise ValueError(f"sigma / grid_step = {float(ratio):g}: expected 1 to {MAX_RATIO}; take {hint} or noise 'gaussian'")
    if len(taus) > MAX_TAUS or not all(a < b for a, b in pairwise((0.0, *taus, math.inf))):
        raise ValueError(f"taus = {taus}: expected at most {MAX_TAUS} positive finite numbers, ascending")
    exact = [Fraction(tau) for tau in taus]
    with localcontext(_PRECISE):
        tail = cache(_tail)
        edges, counts, variation = _edges(ratio, exact, tail)
        means = _means(ratio, edges[-1], tail)
    below = [-edge for edge in reversed(edges)]
    bounds = [*below, *edges[:-1]]
    places = [math.floor(bound * ratio + Fraction(1, 2)) for bound in bounds]
    # Of the parts of one cell, the place within it.
    within = [0] * len(places)
    for i in range(1, len(places)):
        within[i] = within[i - 1] + 1 if places[i] == places[i - 1] else 0
    bits = max(within).bit_length()
    if (places[-1] + 1) << bits > 2**15:
        raise ValueError(f"sigma / grid_step = {float(ratio):g} with {len(taus)} taus: more parts than 16 bits can name")
    ends = [bisect_right(exact, lo) - bisect_right(exact, -hi) for lo, hi in zip(bounds, [*bounds[1:], edges[-1]], strict=True)]
    return _law(ratio, taus, bits, np.array(places), np.array(within), np.array(ends), counts, means, variation)


def _tail(t: Fraction) -> tuple[Decimal, Decimal]:
    """(phi(t), Q(t)) for 0 < t < 10."""
    x = Decimal(t.numerator) / Decimal(t.denominator)
    square = x * x
    density = (-square / 2).exp() / _ROOT
    total, before, term, n = x, Decimal(0), x, Decimal(1)
    while total != before:
        n += _TWO
        term = term * square / n
        before, total = total, total + term
    return density, Decimal("0.5") - density * total


def _edges(ratio: Fraction, taus: list[Fraction], tail: Tail) -> tuple[list[Fraction], list[int], float]:
    """Positive edges up to the first whose count is 0, their counts, and the total variation of a draw."""
    edges, counts, errors = [], [], []
    # 2^64 Q(10) < 1/2.
    cells = (Fraction(2 * k - 1, 2) / ratio for k in range(1, math.ceil(10 * ratio) + 1))
    for edge in sorted({*cells, *taus}):
        exact = TOTAL * tail(edge)[1]
        edges.append(edge)
        counts.append(int(exact.to_integral_value()))
        errors.append(counts[-1] - exact)
        if counts[-1] == 0:
            break
    deviations = [abs(a - b) for a, b in pairwise(errors)]
    # The centre is off by twice the first error; every other part comes twice, and so does the tail that is cut.
    variation = (abs(errors[0]) + sum(deviations) + abs(errors[-1])) / TOTAL
    return edges, counts, float(variation) * (1.0 + 1e-12)


def _means(ratio: Fraction, end: Fraction, tail: Tail) -> npt.NDArray[np.float64]:
    """E[u | k] for k from 0 up to the cell that ends at `end` or holds it."""
    means = [0.0]
    (density, mass), edge = tail(Fraction(1, 2) / ratio), Fraction(1, 2) / ratio
    while edge < end:
        edge += 1 / ratio
        further, beyond = tail(edge)
        means.append(float((density - further) / (mass - beyond)))
        density, mass = further, beyond
    return np.array(means)


def _law(
    ratio: Fraction,
    taus: tuple[float, ...],
    bits: int,
    places: npt.NDArray[np.int64],
    within: npt.NDArray[np.int64],
    ranks: npt.NDArray[np.int64],
    counts: list[int],
    means: npt.NDArray[np.float64],
    variation: float,
) -> Law:
    codes, low = (places << bits) + within, int(places[0]) << bits
    upper = [TOTAL - count for count in counts[:-1]]
    edges = np.array([*reversed(counts[:-1]), *upper], dtype=np.uint64)
    weights = np.diff(np.array([0, *edges.tolist(), TOTAL], dtype=object)).astype(np.uint64)
    rank = np.zeros((2 * int(places[-1]) + 1) << bits, dtype=np.int8)
    rank[codes - low] = ranks
    mean = np.repeat(np.concatenate((-means[:0:-1], means)), 1 << bits)
    starts = np.arange(2**LEADING, dtype=np.uint64) << np.uint64(64 - LEADING)
    first = np.append(np.searchsorted(edges, starts, side="right"), len(edges)).astype(np.uint16)
    last = np.searchsorted(edges, starts + np.uint64(2 ** (64 - LEADING) - 1), side="right")
    guide = np.where(first[:-1] == last, codes[first[:-1]], OPEN).astype(np.int16)
    fixed = (codes.astype(np.int16), weights, edges, mean, rank, guide, first)
    for array in fixed:
        array.flags.writeable = False
    return Law(ratio, taus, bits, low, *fixed[:5], variation, *fixed[5:])
