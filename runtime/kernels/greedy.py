"""Tails along one direction: the worst votes against that a profile of tail bounds allows, at distance a along it (b = 0).

A profile says of h, the votes against, with t = e.u: P(h) <= P[0] = eps and P(h, t >= tau_k) <= P[k] for k = 1..K; P[K + 1] = 0.
E[h L_a] with L_a = exp(a t - a^2/2) is largest for the h that sits as far up as the profile lets it: from the top segment
[tau_K, inf) down, each segment [tau_k, tau_{k+1}) is filled from its right end with what P[k] leaves. That set does not depend on
a, so B(a, 0) = sum over k of Q(x_k - a) - Q(tau_{k+1} - a), x_k the left end of the part that is filled.

Between two points that are certified. For a fixed h the map x -> E h(u + x) bends down by at most 2 phi(1) in any direction, so
where B falls short of 1/2 by d0 and d1 at two points, it stays below 1/2 between them if sqrt(phi(1)) times their distance is at
most sqrt(d0) + sqrt(d1).

Rounding. Q(tau_k) is rounded up, and sums of normal cdfs by MARGIN, more than their errors together.
"""

import math

import numpy as np
import numpy.typing as npt

from .arrays import Array
from .jit import jit
from .normal import INV_SQRT_2PI, density, upper, upper_quantile

# phi(1), rounded up; its square root, rounded up.
BEND = math.exp(-0.5) * INV_SQRT_2PI * (1.0 + 1e-15)
ROOT_BEND = math.sqrt(BEND) * (1.0 + 1e-15)
# A normal cdf is good to 1e-15 of itself for |x| < 2, and to x^2 times 2e-16 beyond, where it is small.
UP = 1.0 + 1e-13
DOWN = 1.0 - 1e-12
MARGIN = 1e-13
# The march along a ray: steps at most, the longest, how far, and what is left to gain below which it ends.
STEPS, LONGEST, FAR, ENOUGH = 200, 1.0, 25.0, 1e-10


@jit
def fill_profile(eps: float, tau: Array, p: Array, profile: Array) -> None:
    """profile = (eps, running minimum of p and Q(tau), 0), shape (K + 2,); tau increasing, shape (K,)."""
    profile[0] = eps
    for k in range(tau.size):
        profile[k + 1] = min(profile[k], p[k], upper(tau[k]) * UP)
    profile[tau.size + 1] = 0.0


@jit
def quantile(mass: float) -> float:
    """The x with Q(x) = mass, 0 <= mass <= 1."""
    if mass > 0.5:
        return -upper_quantile(1.0 - mass) if mass < 1.0 else -math.inf
    return upper_quantile(mass) if mass > 0.0 else math.inf


@jit
def greedy_edges(profile: Array, tau: Array, edges: Array) -> None:
    """edges[k] = x_k, shape (K + 1,); x_k = tau_{k+1} (inf for the last) where segment k stays empty."""
    size = tau.size
    used = beyond = 0.0
    for k in range(size, -1, -1):
        left = tau[k - 1] if k > 0 else -math.inf
        right = tau[k] if k < size else math.inf
        room = upper(left) - beyond
        fill = profile[k] - used
        if fill >= room:
            fill = room
            edges[k] = left
        else:
            edges[k] = min(max(quantile(beyond + fill), left), right) if fill > 0.0 else right
        used += fill
        beyond = upper(left)


@jit
def votes_along(a: float, edges: Array, tau: Array) -> tuple[float, float]:
    """(B(a, 0) rounded up, its slope in a)."""
    total = slope = 0.0
    for k in range(edges.size):
        x = edges[k] - a
        total += upper(x)
        slope += density(x)
        if k < tau.size:
            total -= upper(tau[k] - a)
            slope -= density(tau[k] - a)
    return total + MARGIN, slope


@jit
def ray_radius(profile: Array, tau: Array, start: float, edges: Array) -> float:
    """The largest a (up to FAR) found such that B(a', 0) < 1/2 for all start <= a' <= a; at least `start`, which must be >= 0.

    From a certified a the next step is Newton's or the secant's, accepted where both its ends certify all between (see above);
    failing that a step of -Phi^-1(B), which is always safe.
    """
    greedy_edges(profile, tau, edges)
    if not profile[0] < 0.5:
        return start
    first = max(start, upper_quantile(profile[0]) * DOWN)
    a = first
    value, slope = votes_along(a, edges, tau)
    if not value < 0.5:
        return a
    hop = 0.0
    for _ in range(STEPS):
        spare = 0.5 - value
        sure = upper_quantile(value) * DOWN
        if hop == 0.0:
            hop = min(spare / slope, LONGEST) if slope > 0.0 else LONGEST
        if a > FAR:
            return max(first, FAR)
        if spare < ENOUGH:
            return max(a, (a + sure) * DOWN)
        there, bend = votes_along(a + hop, edges, tau)
        other = 0.5 - there
        if other > 0.0 and ROOT_BEND * hop <= math.sqrt(spare) + math.sqrt(other):
            a, value, slope, hop = a + hop, there, bend, 0.0
        elif hop > 2.0 * sure:
            hop = max(0.99 * hop * spare / (spare - other) if other <= 0.0 else 0.5 * hop, sure)
        else:
            a, hop = a + sure, 0.0
            value, slope = votes_along(a, edges, tau)
            if not value < 0.5:
                return a
    return a


@jit
def _ray_radii(eps: Array, tau: Array, p: Array, start: Array, out: Array) -> None:
    profile, edges = np.empty(tau.size + 2), np.empty(tau.size + 1)
    for n in range(eps.size):
        fill_profile(eps[n], tau, p[n], profile)
        out[n] = ray_radius(profile, tau, start[n], edges)


def ray_radii(eps: npt.ArrayLike, tau: Array, p: npt.ArrayLike, start: npt.ArrayLike = 0.0) -> Array:
    """`ray_radius` of many profiles, not checked: eps and start broadcast, p to their shape and (K,); eps >= 1/2 gives 0."""
    eps, start = np.broadcast_arrays(np.asarray(eps, np.float64), np.asarray(start, np.float64))
    p = np.broadcast_to(np.asarray(p, np.float64), (*eps.shape, tau.size))
    out = np.empty(eps.size)
    _ray_radii(eps.ravel(), tau, np.ascontiguousarray(p.reshape(-1, tau.size)), start.ravel(), out)
    return np.asarray(np.where(eps < 0.5, out.reshape(eps.shape), 0.0))
