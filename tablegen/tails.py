"""The exact bound B(a, b; eps, tau, p) of the votes against at a shift a e + b e', from tail bounds along e (sigma = 1).

    B = sup { E[h L] : 0 <= h(t, s) <= 1, E h <= eps, E[h 1{t >= tau_k}] <= p_k },   L = exp(a t + b s - (a^2 + b^2)/2)

With P = (eps, running minimum of p, 0) and Lam_k, nondecreasing and >= 0, the level on the segment tau_k <= t < tau_{k+1}
(tau_0 = -inf, tau_{K+1} = inf), weak duality reads

    B <= sum over k of Lam_k (P_k - P_{k+1}) + E[(L - Lam_k)_+; tau_k <= t < tau_{k+1}].

The sum is separable, each term convex in its Lam_k, and only the order ties them: isotonic regression, which pooling adjacent
violators solves exactly. A pool of segments has one level, where its worst set's mass {L > Lam} is the pool's sum of P_k - P_{k+1}:
one root in log Lam, by Newton on the logarithm of the mass. b = 0 is a closed form (kernels/greedy.py).

The sum is an upper bound at ANY levels, so an inexact root costs tightness only. What is returned is rounded up by MARGIN, more
than quadrature and rounding cost.
"""

import enum
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array
from certlut.kernels.greedy import fill_profile, greedy_edges, votes_along
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

from .tail_quadrature import stretch

# Demanded of the gap between the dual's value and what a set that the profile allows attains.
TOLERANCE = 1e-9
MARGIN = 1e-12
# Below this b the shift counts as one along e, and the votes against grow by at most phi(0) b.
STRAIGHT = 1e-11
# Beyond this length exp(a t - a^2/2) leaves float64.
FURTHEST = 25.0
NEWTON = 60


class Status(enum.IntEnum):
    """How B was found."""

    FAILED = 0
    CLOSED_FORM = 1
    POOLED = 2


@dataclass(frozen=True)
class TailBound:
    """B with the levels Lam_0 <= ... <= Lam_K of its dual certificate (inf where nothing is allowed beyond)."""

    value: float
    levels: tuple[float, ...]
    status: Status
    error: float
    """At most this much of `value` is due to inexact levels, rounding and quadrature."""

    @property
    def converged(self) -> bool:
        """Whether `value` may be used."""
        return self.status != Status.FAILED

    @property
    def multipliers(self) -> tuple[float, ...]:
        """lam_0 of E h <= eps, then lam_k of each threshold: the steps between the levels."""
        levels = (0.0, *self.levels)
        return tuple(high - low if low < math.inf else 0.0 for low, high in itertools.pairwise(levels))


@jit
def _root(a: float, b: float, lo: float, hi: float, mass: float) -> tuple[float, float, float]:
    """(log Lam, shifted, mass) of the stretch whose worst set has the mass given, > 0.

    log Lam is -inf where the stretch has no more than that mass.
    """
    room = upper(lo) - upper(hi) if lo > 0.0 or hi == math.inf else upper(-hi) - upper(-lo)
    if mass >= room * (1.0 - 1e-14):
        return -math.inf, upper(lo - a) - upper(hi - a), room
    # log L on the stretch has about this mean and deviation.
    edges = (density(lo) if lo > -math.inf else 0.0, density(hi) if hi < math.inf else 0.0)
    mean = (edges[0] - edges[1]) / room
    spread = 1.0 - mean * mean
    if edges[0] > 0.0:
        spread += lo * edges[0] / room
    if edges[1] > 0.0:
        spread -= hi * edges[1] / room
    deviation = math.sqrt(b * b + a * a * max(spread, 0.0))
    centre = a * mean - 0.5 * (a * a + b * b)
    low, high = -math.inf, math.inf
    x = centre + deviation * min(3.0, math.sqrt(max(0.0, -2.0 * math.log(2.0 * mass / room)))) if mass < 0.5 * room else centre
    shifted = found = 0.0
    for _ in range(NEWTON):
        shifted, found, boundary = stretch(a, b, x, lo, hi)
        if found > mass:
            low = x
        else:
            high = x
        change = found * math.log(found / mass) / boundary if boundary > 0.0 and found > 0.0 else math.nan
        if abs(change) <= 1e-11 * deviation:
            return x, shifted, found
        reach = 3.0 * deviation
        new = x + min(max(change, -reach), reach)
        if not low < new < high:
            if low > -math.inf and high < math.inf:
                new = 0.5 * (low + high)
            else:
                new = x + reach if found > mass else x - reach
        if new == x:
            break
        x = new
    return x, shifted, found


@jit
def pool(a: float, b: float, profile: Array, tau: Array, levels: Array) -> tuple[float, float]:
    """(the dual's value, how far above the optimum it may be); fills the logarithms of the levels. a >= 0, b > 0."""
    size = tau.size
    first = np.zeros(size + 1, np.int64)
    pools = np.empty((size + 1, 4))  # log Lam, mass allowed, shifted, mass
    count = 0
    top = size
    while top >= 0 and profile[top] <= profile[top + 1]:
        levels[top] = math.inf
        top -= 1
    for k in range(top + 1):
        start, mass = k, profile[k] - profile[k + 1]
        hi = tau[k] if k < size else math.inf
        while True:
            lo = tau[start - 1] if start > 0 else -math.inf
            x = math.inf
            if mass > 0.0:
                x, pools[count, 2], pools[count, 3] = _root(a, b, lo, hi, mass)
            if count == 0 or pools[count - 1, 0] <= x:
                break
            count -= 1
            start = first[count]
            mass += pools[count, 1]
        first[count] = start
        pools[count, 0], pools[count, 1] = x, mass
        count += 1
    value = gap = 0.0
    for i in range(count):
        x, mass, shifted, found = pools[i]
        last = first[i + 1] if i + 1 < count else top + 1
        levels[first[i] : last] = x
        if x == -math.inf:
            value += shifted
        else:
            value += math.exp(x) * (mass - found) + shifted
            gap += math.exp(x) * abs(mass - found)
    return value, gap


def checked_profile(a: float, b: float, eps: float, tau: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Array, Array]:
    """(tau, the profile) of a valid question; ValueError that names the input that is not."""
    for name, x, most in (("a", a, FURTHEST), ("b", b, FURTHEST), ("eps", eps, 1.0)):
        if not 0.0 <= x <= most:
            raise ValueError(f"{name} = {x!r}: expected a number from 0 to {most:g}")
    thresholds, bounds = np.array(tau, dtype=np.float64, ndmin=1), np.array(p, dtype=np.float64, ndmin=1)
    if thresholds.ndim != 1 or thresholds.shape != bounds.shape:
        raise ValueError(f"tau and p have shapes {thresholds.shape} and {bounds.shape}: expected one bound for each threshold")
    if not (np.isfinite(thresholds).all() and (np.diff(thresholds) > 0.0).all()):
        raise ValueError(f"tau = {thresholds.tolist()}: expected finite thresholds in increasing order")
    if not ((bounds >= 0.0) & (bounds <= 1.0)).all():
        raise ValueError(f"p = {bounds.tolist()}: expected probabilities from 0 to 1")
    profile = np.empty(thresholds.size + 2)
    fill_profile(eps, thresholds, bounds, profile)
    return thresholds, profile


def _straight(a: float, b: float, profile: Array, tau: Array) -> TailBound:
    """b = 0: the greedy set's levels are L at its left ends; a segment that is full takes the level below."""
    edges = np.empty(tau.size + 1)
    greedy_edges(profile, tau, edges)
    left = np.append(-np.inf, tau)
    levels: list[float] = []
    for k in range(tau.size + 1):
        if edges[k] == left[k]:
            levels.append(levels[-1] if levels else 0.0)
        else:
            levels.append(math.exp(min(a * edges[k] - 0.5 * a * a, 709.0)) if edges[k] < math.inf else math.inf)
    value, _ = votes_along(a, edges, tau)
    value += b * density(0.0) * (1.0 + 1e-12)
    return TailBound(min(value, 1.0), tuple(levels), Status.CLOSED_FORM, MARGIN + b)


def solve_tail(a: float, b: float, eps: float, tau: npt.ArrayLike, p: npt.ArrayLike) -> TailBound:
    """B(a, b; eps, tau, p), the most that votes against can weigh at a shift a e + b e'.

    Args:
        a: length of the shift along e, from 0 to FURTHEST.
        b: its length across e, likewise.
        eps: upper bound of the votes against, E h.
        tau: thresholds, increasing, shape (K,).
        p: upper bounds of P(h = 1, e.u >= tau_k), shape (K,); replaced by their running minimum, at most eps and Q(tau).

    Raises:
        ValueError: an input outside the domain, named.
    """
    a, b, eps = float(a), float(b), float(eps)
    thresholds, profile = checked_profile(a, b, eps, tau, p)
    if b < STRAIGHT:
        return _straight(a, b, profile, thresholds)
    logarithms = np.empty(thresholds.size + 1)
    value, gap = pool(a, b, profile, thresholds, logarithms)
    if not gap <= TOLERANCE:
        return TailBound(math.nan, (math.nan,) * logarithms.size, Status.FAILED, math.inf)
    return TailBound(min(value + MARGIN, 1.0), tuple(np.exp(logarithms).tolist()), Status.POOLED, gap + 2.0 * MARGIN)


def tail_bound(
    a: npt.ArrayLike, b: npt.ArrayLike, eps: float, tau: npt.ArrayLike, p: npt.ArrayLike
) -> float | npt.NDArray[np.float64]:
    """`solve_tail(...).value` where a and b broadcast; scalars give a float.

    Raises:
        ValueError: an input outside the domain.
        ArithmeticError: a point that did not converge; never a silent wrong number.
    """
    first, second = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    out = np.empty(first.shape)
    for index in np.ndindex(out.shape):
        solution = solve_tail(float(first[index]), float(second[index]), eps, tau, p)
        if not solution.converged:
            raise ArithmeticError(f"no convergence at a = {first[index]!r}, b = {second[index]!r}, eps = {eps!r}")
        out[index] = solution.value
    return float(out[()]) if out.ndim == 0 else out
