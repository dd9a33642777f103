"""The sound look-up: planes and chords from the eight nodes around a query. Every step is a proven lower bound.

Let p(r) be the least E f L_r over classifiers f with E f >= q, E u1 f >= m1, E u2 f >= m2; the radius is where p falls to 1/2.

Planes. Node i stores a radius r_i, multipliers a >= 0 and c >= E(L_r - a.(1, u))_+ at r = r_i. By weak duality, at EVERY query,

    p(r_i) >= a0 q + a1 m1 + a2 m2 - (c + a0 - 1)  =  1/2 + s_i,      s_i = 1/2 - c - a0 (1 - q) + a1 m1 + a2 m2,

and the second form does not cancel as q -> 1. It holds whichever node it is: only the choice of nodes is clamped to the grid, never
the query.

Chords. Phi^-1(p(r)) is concave in r >= 0. For r between r_i and r_j let K be the set where L_r(u1) <= a.(1, u), a the optimum
at r: its indicator attains p(r), and K is convex since L_r is. That f is admissible at every other radius too, so, gamma being
the Gaussian measure, gamma(K - r_i e1) >= p(r_i) and gamma(K - r_j e1) >= p(r_j); and by Ehrhard's inequality
Phi^-1(gamma(K - r e1)) is concave in r. (On the rim the only admissible f is a half-space, and the same holds.) With
x_i <= Phi^-1(1/2 + s_i), a sign change x_i >= 0 > x_j at r_i < r_j certifies

    r_i + (r_j - r_i) x_i / (x_i - x_j);   p(0) being q or more, a node with x_j < 0 certifies   r_j z / (z - x_j),   z = Phi^-1(q).

Reach. A shift by h lowers Phi^-1(E f L_r) by at most h (Neyman-Pearson), so x_i >= 0 alone certifies r_i + x_i.

Floors. Cohen's radius z is always valid. For m2 = 0 the optimum is a slab w2 <= u1 <= w1 (Corollary 3.1): `slab_radius` solves for
it, then evaluates the cut whose multipliers are the line through L_r(w1) and L_r(w2), so that an inexact root costs radius only.

Rounding. Every s is lowered by more than the rounding of its terms, roots and radii by more than theirs.
"""

import math

import numpy as np
import numpy.typing as npt

from .jit import jit
from .normal import density, upper, upper_quantile

Array = npt.NDArray[np.float64]

SQRT_2PI = 2.5066282746310002
# Relative allowance for a sum of a few rounded products (each costs 1.1e-16), and for a root or radius computed from it.
ROUNDING = 2e-15
DOWN = 1.0 - 1e-14


@jit
def slab_radius(eps: float, m1: float, z: float) -> float:
    """A lower bound, tight to some 1e-12, of the radius at m2 = 0; |m1| < phi(z)."""
    # The unknown is the tail mass beyond the far edge, the smaller one: it alone carries its own relative accuracy.
    gradient = abs(m1)
    lo, hi = 0.0, 0.5 * eps
    small = 0.25 * eps * (1.0 - gradient / density(z))
    near = far = z
    for _ in range(100):
        near, far = upper_quantile(eps - small), upper_quantile(small)
        surplus = density(near) - density(far) - gradient
        if surplus > 0.0:
            lo = small
        else:
            hi = small
        new = small + surplus / (near + far)
        if not lo < new < hi:
            new = 0.5 * (lo + hi) if lo > 0.0 else 0.01 * hi
        if abs(new - small) <= 1e-13 * small:
            break
        small = new
    w1, w2 = (near, -far) if m1 <= 0.0 else (far, -near)
    lo, hi = max(0.0, 0.5 * (w1 + w2)), w1
    r = w1
    slope = 0.0
    for _ in range(100):
        surplus = 0.5 - upper(w1 - r) - upper(r - w2)
        if surplus >= 0.0:
            lo = r
        else:
            hi = r
        slope = density(w1 - r) - density(w2 - r)
        new = r + surplus / slope
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi)
        if abs(new - r) <= 1e-14 * r:
            break
        r = new
    l1 = math.exp(r * w1 - 0.5 * r * r)
    a1 = (l1 - math.exp(r * w2 - 0.5 * r * r)) / (w1 - w2)
    a0 = l1 - a1 * w1
    mass = upper(w1) + upper(-w2)
    pull = density(w1) - density(w2)
    s = 0.5 - upper(w1 - r) - upper(r - w2) - a0 * (eps - mass) + a1 * (m1 + pull)
    s -= ROUNDING * (1.0 + a0 * (eps + mass) + a1 * (gradient + density(w1) + density(w2)))
    return (r + min(0.0, 2.0 * s / slope)) * DOWN


@jit
def _cell(knots: Array, x: float) -> int:
    """i with knots[i] <= x < knots[i + 1], clamped to the grid."""
    lo, hi = 0, knots.size - 1
    while hi - lo > 1:
        middle = (lo + hi) >> 1
        if x >= knots[middle]:
            lo = middle
        else:
            hi = middle
    return lo


@jit
def probit(s: float) -> float:
    """At most Phi^-1(1/2 + s), and within 0.2 % of it for |s| < 0.05; -inf below s = -0.2, where nodes are of no use."""
    y = SQRT_2PI * s
    if s >= 0.0:
        return y * DOWN  # Phi^-1 is convex there.
    if s < -0.2:
        return -math.inf
    # Phi^-1(1/2 + y / sqrt(2 pi)) = y + y^3/6 + 7 y^5/120 + ...; on |y| < 0.502 the tail from y^5 on stays below 0.075 |y|^5.
    v = y * y
    return y * (1.0 + v * (1.0 / 6.0 + 0.075 * v)) / DOWN


@jit
def plane(node: Array, eps: float, m1: float, m2: float) -> float:
    """s of a node (radius, c, a0, a1, a2) at the query, rounded down."""
    c: float = node[1]
    t0: float = node[2] * eps
    t1: float = node[3] * m1
    t2: float = node[4] * m2
    return 0.5 - c - t0 + t1 + t2 - ROUNDING * (0.5 + c + t0 + abs(t1) + t2)


@jit
def lookup(q: float, m1: float, m2: float, z_axis: Array, rho_axis: Array, theta_axis: Array, nodes: Array) -> float:
    """A radius (sigma = 1) never above the exact one. NaN gives NaN, q <= 1/2 gives 0; q < 1 is the caller's to check.

    `nodes` has the shape (z, rho, theta, 5): radius, c, a0, a1, a2. m2 < 0 counts as 0; beyond the rim m1 and m2 are reduced to it.
    """
    if math.isnan(q) or math.isnan(m1) or math.isnan(m2):
        return math.nan
    if q <= 0.5:
        return 0.0
    eps = 1.0 - q
    z = upper_quantile(eps) * DOWN
    rim = density(z)
    # No classifier has |m1| > rim, so raising m1 to -rim is free.
    m1 = max(min(m1, rim), -rim)
    m2 = min(m2, math.sqrt(max(rim * rim - m1 * m1, 0.0)))
    best = z
    itheta = _cell(theta_axis, math.atan2(max(m2, 0.0), -m1) * (180.0 / math.pi))
    if m2 <= 0.0 or itheta == 0:
        # m2 = 0 is a weaker hypothesis, and near it the slab is the tighter bound.
        if m1 > -rim:
            best = max(best, slab_radius(eps, min(m1, rim * (1.0 - 1e-7)), z))
        if m2 <= 0.0:
            return best
    iz = _cell(z_axis, z)
    irho = _cell(rho_axis, math.sqrt(m1 * m1 + m2 * m2) / rim)
    above_r = np.empty(8)
    above_x = np.empty(8)
    below_r = np.empty(8)
    below_x = np.empty(8)
    above = below = 0
    for corner in range(8):
        node = nodes[iz + (corner & 1), irho + ((corner >> 1) & 1), itheta + (corner >> 2)]
        r = node[0]
        x = probit(plane(node, eps, m1, m2))
        if x >= 0.0:
            best = max(best, (r + x) * DOWN)
            above_r[above], above_x[above] = r, x
            above += 1
        else:
            best = max(best, r * (z / (z - x)) * DOWN)
            below_r[below], below_x[below] = r, x
            below += 1
    for j in range(below):
        for i in range(above):
            h = below_r[j] - above_r[i]
            if below_r[j] > best and h > 0.0:
                best = max(best, (above_r[i] + h * (above_x[i] / (above_x[i] - below_x[j]))) * DOWN)
    return best


@jit
def lookup_many(
    q: Array, m1: Array, m2: Array, z_axis: Array, rho_axis: Array, theta_axis: Array, nodes: Array, out: Array
) -> None:
    """`lookup` over flat arrays."""
    for i in range(out.size):
        out[i] = lookup(q[i], m1[i], m2[i], z_axis, rho_axis, theta_axis, nodes)
