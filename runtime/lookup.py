"""The sound look-up: planes and chords from the nodes around a query. Every step is a proven lower bound.

Planes. Node i stores a radius r_i, multipliers a >= 0 and c >= E(L_r - a.(1, u))_+ (r = r_i). By weak duality, for EVERY
(q, m1, m2) and every classifier f that satisfies them,

    E f L_r >= a0 q + a1 m1 + a2 m2 - (c + a0 - 1)  =  1/2 + s_i,      s_i = 1/2 - c - a0 (1 - q) + a1 m1 + a2 m2.

The second form does not cancel as q -> 1. s_i >= 0 certifies r_i, whichever node it is: only the choice of nodes is clamped to the
grid, never the query.

Chords. For one f, g(r) = E f L_r has |g''| <= sup_f |E f (L_r)''| = 2 phi(1). So between two radii r_i < r_j, h = r_j - r_i,
    g(r_i + t h) >= 1/2 + (1 - t) s_i + t s_j - phi(1) t (1 - t) h^2,    0 <= t <= 1,
and where s_i >= 0 > s_j the right-hand side is >= 1/2 up to its only root in [0, 1].

Reach. From s_i > 0 alone: g(r_i + h) >= Phi(Phi^-1(1/2 + s_i) - h) (Neyman-Pearson for a shift by h), so r_i + sqrt(2 pi) s_i is
certified, Phi^-1 being convex there.

Floors. Cohen's radius Phi^-1(q) is always valid. For m2 = 0 the optimum is a slab w2 <= u1 <= w1 (Corollary 3.1): `slab_radius`
solves for it, then evaluates the cut whose multipliers are the line through L_r(w1) and L_r(w2), so that an inexact root costs
radius only.

Rounding. Every s is lowered by more than the rounding of its terms, roots and radii by more than theirs.
"""

import math

import numpy as np
import numpy.typing as npt

from .jit import jit
from .normal import density, upper, upper_quantile

Array = npt.NDArray[np.float64]

CURVATURE = 0.24197072451914337 * (1.0 + 1e-15)  # phi(1), rounded up
SQRT_2PI = 2.5066282746310002 * (1.0 - 1e-15)  # rounded down
# Relative allowance for a sum of a few rounded products (each costs 1.1e-16), and for a root or radius computed from it.
ROUNDING = 2e-15
DOWN = 1.0 - 1e-14
# Layers of constant z that a query may look at before it makes do with the floors.
LAYERS = 12


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
def lookup(q: float, m1: float, m2: float, z_axis: Array, rho_axis: Array, theta_axis: Array, nodes: Array) -> float:
    """A radius (sigma = 1) never above the exact one. NaN gives NaN, q <= 1/2 gives 0; q < 1 is the caller's to check.

    `nodes` has the shape (z, rho, theta, 5): radius, c, a0, a1, a2. m2 < 0 counts as 0; beyond the rim m1 and m2 are reduced to it,
    which only weakens the hypotheses.
    """
    if math.isnan(q) or math.isnan(m1) or math.isnan(m2):
        return math.nan
    if q <= 0.5:
        return 0.0
    eps = 1.0 - q
    z = upper_quantile(eps)
    cohen = z * DOWN
    rim = density(z)
    m1 = min(m1, rim)
    if m2 <= 0.0:
        if m1 <= -rim:
            return cohen
        return max(cohen, slab_radius(eps, min(m1, rim * (1.0 - 1e-7)), z))
    m2 = min(m2, math.sqrt(max(rim * rim - m1 * m1, 0.0)))
    iz = _cell(z_axis, z)
    irho = _cell(rho_axis, math.sqrt(m1 * m1 + m2 * m2) / rim)
    itheta = _cell(theta_axis, math.atan2(m2, -m1) * (180.0 / math.pi))

    best = cohen
    # Candidate starts of chords: the origin (r = 0, s = q - 1/2) and every node whose plane certifies its radius.
    above_r = np.empty(9)
    above_s = np.empty(9)
    below_r = np.empty(4 * LAYERS)
    below_s = np.empty(4 * LAYERS)
    above_r[0] = 0.0
    above_s[0] = (0.5 - eps) * DOWN
    above, below = 1, 0
    # From the layer of larger q downwards, until some plane certifies: just above a knot the second layer may fall short too.
    for layer in range(iz + 1, max(iz + 1 - LAYERS, -1), -1):
        for corner in range(4):
            node = nodes[layer, irho + (corner >> 1), itheta + (corner & 1)]
            r, c = node[0], node[1]
            t0, t1, t2 = node[2] * eps, node[3] * m1, node[4] * m2
            s = 0.5 - c - t0 + t1 + t2 - ROUNDING * (0.5 + c + t0 + abs(t1) + t2)
            if s >= 0.0:
                best = max(best, (r + SQRT_2PI * s) * DOWN)
                above_r[above], above_s[above] = r, s
                above += 1
            else:
                below_r[below], below_s[below] = r, s
                below += 1
        if above > 1 and layer <= iz:
            break
    for j in range(below):
        for i in range(above):
            h = below_r[j] - above_r[i]
            if below_r[j] > best and h > 0.0:
                bend = CURVATURE * h * h
                # The root of bend t^2 - b t + s_i, in the form that does not cancel.
                b = above_s[i] - below_s[j] + bend
                t = 2.0 * above_s[i] / (b + math.sqrt(max(b * b - 4.0 * bend * above_s[i], 0.0)))
                best = max(best, (above_r[i] + h * t * DOWN) * DOWN)
    return best


@jit
def lookup_many(
    q: Array, m1: Array, m2: Array, z_axis: Array, rho_axis: Array, theta_axis: Array, nodes: Array, out: Array
) -> None:
    """`lookup` over flat arrays."""
    for i in range(out.size):
        out[i] = lookup(q[i], m1[i], m2[i], z_axis, rho_axis, theta_axis, nodes)
