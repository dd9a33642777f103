"""The exact tail radius of a threat: the largest R whose ball is covered by shifts (a, b), b <= beta(a), with B(a, b) < 1/2.

Shifts no longer than r1(R), which another certificate covers, need no tails. So R is certified where B(a, beta(a)) < 1/2 for EVERY
a in (0, R] with a^2 + beta(a)^2 >= r1(R)^2: B need not rise with a, and an end point says nothing about what lies below it. B rises
with b, so the shifts below the boundary are covered by those on it; and r1 does not rise with R, so what is certified is an
interval of R's, found by bisection.

All a's of a cell [a0, a1] are tested at once (turning lemma): B(a, b) <= B(a0, sqrt(rho^2 - a0^2)) where a >= a0 and
a^2 + b^2 <= rho^2. Along one direction the cell's two ends certify what lies between them (kernels/greedy.py). A cell that fails is
halved, until one of its own shifts fails or it is CELL wide.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array
from certlut.kernels.covering import Covering, across, furthest
from certlut.kernels.greedy import ROOT_BEND, greedy_edges, votes_along
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper_quantile

from .tails import FURTHEST, MARGIN, STRAIGHT, TOLERANCE, checked_profile, pool

# Parts of R: width of the last cells; relative width of the last bracket of R.
CELL = 1e-5
BRACKET = 1e-6
START = 16
STACK = 200


@jit
def votes(a: float, b: float, profile: Array, tau: Array, edges: Array, levels: Array) -> float:
    """B(a, b) rounded up; NaN where it did not converge."""
    if b < STRAIGHT:
        value, _ = votes_along(a, edges, tau)
        return value + b * density(0.0)
    value, gap = pool(a, b, profile, tau, levels)
    return value + MARGIN if gap <= TOLERANCE else math.nan


@jit
def certified(size: float, covered: float, p: float, w: float, profile: Array, tau: Array, edges: Array) -> bool:
    """Whether the ball of this size is, its shifts up to the length `covered` given."""
    levels = np.empty(tau.size + 1)
    lows, highs = np.empty(STACK), np.empty(STACK)
    # The longest shift below an a is (2 - p over 2)-th power of a for p < 2, and sqrt(1 + w) a otherwise.
    part = min(covered / size, 1.0)
    least = part / math.sqrt(1.0 + w)
    if p < 2.0:
        least = max(least, math.pow(part, 2.0 / (2.0 - p)))
    least = min(least, 1.0) * (1.0 - 1e-12)
    filled = START
    for i in range(START):
        lows[i] = least + (1.0 - least) * i / START
        highs[i] = least + (1.0 - least) * (i + 1) / START
    highs[START - 1] = 1.0
    while filled > 0:
        filled -= 1
        low, high = lows[filled], highs[filled]
        length = furthest(low, high, p, w)
        if length * size <= covered:
            continue
        b = math.sqrt(max(length * length - low * low, 0.0)) * (1.0 + 1e-14) if w > 0.0 else 0.0
        spare = 0.5 - votes(low * size, b * size, profile, tau, edges, levels)
        if w > 0.0 and spare > 0.0:
            continue
        if w <= 0.0 and spare > 0.0:
            other = 0.5 - votes(high * size, 0.0, profile, tau, edges, levels)
            if other > 0.0 and ROOT_BEND * (high - low) * size < math.sqrt(spare) + math.sqrt(other):
                continue
        middle = 0.5 * (low + high)
        beta = across(middle, p, w)
        if math.hypot(middle, beta) * size > covered and not votes(middle * size, beta * size, profile, tau, edges, levels) < 0.5:
            return False
        if high - low < CELL or filled + 2 > STACK:
            return False
        lows[filled], highs[filled] = low, middle
        lows[filled + 1], highs[filled + 1] = middle, high
        filled += 2
    return True


def tail_radius(
    p: float,
    w: float,
    eps: float,
    tau: npt.ArrayLike,
    bounds: npt.ArrayLike,
    covered: float | Callable[[float], float] | None = None,
) -> float:
    """The largest certified R of the family (p, w) of kernels/covering.py, sigma = 1; rounded down by BRACKET.

    Args:
        p: exponent of the ball's norm, 1 <= p <= inf.
        w: coordinates less one (p < 2: a whole number); tan(gap)^2 for a net; 0 for one direction.
        eps: upper bound of the votes against; 1/2 or more gives 0.
        tau: thresholds, increasing, shape (K,).
        bounds: upper bounds of P(h = 1, e.u >= tau_k) for every e of the family, shape (K,).
        covered: r1, a length or a function of R that does not rise: shorter shifts are covered already. None: Phi^-1(1 - eps).

    Raises:
        ValueError: an input outside the domain.
    """
    thresholds, profile = checked_profile(0.0, 0.0, float(eps), tau, bounds)
    kappa = Covering(p, w).kappa
    if profile[0] >= 0.5:
        return 0.0
    zeroth = upper_quantile(profile[0])
    edges = np.empty(thresholds.size + 1)
    greedy_edges(profile, thresholds, edges)

    def good(size: float) -> bool:
        r1 = zeroth if covered is None else covered(size) if callable(covered) else covered
        return certified(size, max(float(r1), zeroth), p, w, profile, thresholds, edges)

    low = zeroth / kappa * (1.0 - 1e-12)
    high = 2.0 * low
    while kappa * high < FURTHEST and good(high):
        low, high = high, 2.0 * high
    high = min(high, FURTHEST / kappa)
    while high - low > BRACKET * high:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if good(middle) else (low, middle)
    return low
