"""The sound look-up: cuts and chords from four nodes around a query. Every step is a proven lower bound.

Let p(r) be the least E f L_r over classifiers f with E f >= q, E u1 f >= m1, E u2 f >= m2; the radius is where p falls to 1/2.

Cuts. Node i stores a radius r_i, multipliers a >= 0 and c >= E(L_r - a.(1, u))_+ at r = r_i. By weak duality, at EVERY query,

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

from ..kernels.arrays import Array
from ..kernels.jit import jit
from ..kernels.normal import density, upper_quantile
from ..kernels.slab import slab_radius

Indices = npt.NDArray[np.int64]

# Steps of the map from a coordinate to its place among the knots; queries a block of `lookup_many`.
STEPS = 4096
BLOCK = 256
# A position stays so far below the last knot, in a cell that has a knot above it.
ABOVE = 1e-9
SQRT_2PI = 2.5066282746310002
# Relative allowance for a sum of a few rounded products (each costs 1.1e-16), and for a root or radius computed from it.
ROUNDING = 2e-15
DOWN = 1.0 - 1e-14
TINY = 1e-300
# Up to this part of the first step in theta the slab is solved for.
SLAB = 0.0625


def positions(knots: Array) -> Array:
    """Position among the knots (i + t between knot i and i + 1) at STEPS equal steps from 0 to the last knot, linear between.

    Clamped to the grid. It is close, not exact, where knots are closer than a step: that only chooses nodes.
    """
    at = np.linspace(0.0, knots[-1], STEPS + 1)
    position = np.clip(np.interp(at, knots, np.arange(knots.size, dtype=np.float64)), 0.0, knots.size - 1 - ABOVE)
    return np.append(position, position[-1])


@jit
def turn(m1: float, m2: float) -> float:
    """An angle without trigonometry, 0 to 2 as that of (-m1, m2), m2 >= 0, goes from 0 to 180 degrees; 1 for (0, 0)."""
    return 1.0 + m1 / (abs(m1) + m2 + TINY)


def axis_maps(z: Array, rho: Array, theta: Array) -> tuple[Array, Array]:
    """(scale, position) of the axes z, rho and theta (degrees), as the kernels take them: a row each."""
    angles = np.radians(theta).tolist()
    axes = (z, rho, np.array([turn(-math.cos(x), max(math.sin(x), 0.0)) for x in angles]))
    return np.array([STEPS / axis[-1] for axis in axes]), np.stack([positions(axis) for axis in axes])


@jit
def probit(s: float, least: float) -> float:
    """At most Phi^-1(1/2 + s), and within 0.4 % of it for |s| < 0.1; `least`, also a lower bound, where s < -0.2."""
    y = SQRT_2PI * s
    # Phi^-1(1/2 + y / sqrt(2 pi)) = y + y^3/6 + 7 y^5/120 + ..., and for -0.502 < y < 0 all behind y stays below 0.19 |y|^3.
    # Above 0 Phi^-1 is convex, and y its tangent.
    v = min(y, 0.0)
    x = (y - abs(y) * (1.0 - DOWN)) * (1.0 + 0.19 * (v * v))
    return max(x if s >= -0.2 else least, least)


@jit
def cut_surplus(nodes: Array, i: int, eps: float, m1: float, m2: float) -> float:
    """s of node i (radius, c, a0, a1, a2) at the query, rounded down."""
    c: float = nodes[i, 1]
    t0: float = nodes[i, 2] * eps
    t1: float = nodes[i, 3] * m1
    t2: float = nodes[i, 4] * m2
    return 0.5 - c - t0 + t1 + t2 - ROUNDING * (0.5 + c + t0 + abs(t1) + t2)


@jit
def alone(r: float, x: float, z: float) -> float:
    """What one node certifies: its reach, or the crossing of the chord from (0, z)."""
    return max(r * (z / (z + max(-x, 0.0))), r + x if x > 0.0 else 0.0)


@jit
def between(r: float, x: float, s: float, y: float) -> float:
    """What the nodes at r and s, with Phi^-1(p) at least x and y there, certify together; 0 for nothing.

    One above 1/2 and one below: the crossing (no more than the first's r if that is the larger). Both above: a mean of r and s.
    Both below: 0. No branches, and every term is >= 0.
    """
    one, other = max(x, 0.0), max(y, 0.0)
    crossing = s * one + r * other + (r if x > 0.0 else 0.0) * (other - y) + (s if y > 0.0 else 0.0) * (one - x)
    return crossing / (abs(x) + abs(y) + TINY)


# The rows of a block's scratch: z, phi(z), m1, m2, three coordinates, then radius and s of four nodes.
Z, RIM, M1, M2, PLACE, R, S, ROWS = 0, 1, 2, 3, 4, 7, 11, 15


@jit
def _quantiles(q: Array, m1: Array, m2: Array, work: Array, out: Array) -> None:
    """Stage 1: z and the rim. Cohen's floor is in `out`; what needs no look-up (NaN, q <= 1/2) has z = 0 from here on."""
    z, rim, a, b = work[Z], work[RIM], work[M1], work[M2]
    for n in range(q.size):
        if q[n] > 0.5 and not (math.isnan(m1[n]) or math.isnan(m2[n])):
            z[n] = upper_quantile(1.0 - q[n]) * DOWN
            rim[n], a[n], b[n], out[n] = density(z[n]), m1[n], m2[n], z[n]
        else:
            z[n], rim[n], a[n], b[n] = 0.0, 1.0, 0.0, 0.0
            out[n] = 0.0 if q[n] <= 0.5 and not (math.isnan(m1[n]) or math.isnan(m2[n])) else math.nan


@jit
def _reduce(size: int, work: Array) -> None:
    """Stage 2: m reduced to the rim, and the query's coordinates."""
    z, rim, m1, m2 = work[Z], work[RIM], work[M1], work[M2]
    x, y, w = work[PLACE], work[PLACE + 1], work[PLACE + 2]
    for n in range(size):
        # No classifier has |m1| > rim, so raising m1 to -rim is free; m2 < 0 says no more than m2 = 0.
        a = max(min(m1[n], rim[n]), -rim[n])
        b = min(max(m2[n], 0.0), math.sqrt(max(rim[n] * rim[n] - a * a, 0.0)))
        m1[n], m2[n] = a, b
        x[n], y[n], w[n] = z[n], math.sqrt(a * a + b * b) / rim[n], turn(a, b)


@jit
def _place(size: int, place: Array, scale: float, position: Array, knots: int) -> None:
    """Stage 3: coordinates along one axis become positions among its knots; in the grid, whatever the maps hold, NaN too."""
    last = knots - 1 - ABOVE
    for n in range(size):
        x = min(max(0.0, place[n] * scale), STEPS)
        k = int(x)
        place[n] = min(max(0.0, position[k] + (x - k) * (position[k + 1] - position[k])), last)


@jit
def _choose(size: int, work: Array, n_rho: int, n_theta: int, at: Indices) -> None:
    """Stage 4: of the cell's corners take the four whose simplex holds the query.

    They are the lowest corner and those met by a step along each axis, first the one along which the query is farthest in the cell.
    """
    x, y, w = work[PLACE], work[PLACE + 1], work[PLACE + 2]
    z_step, rho_step = n_rho * n_theta, n_theta
    for n in range(size):
        i, j, k = int(x[n]), int(y[n]), int(w[n])
        xn, yn, wn = x[n] - i, y[n] - j, w[n] - k
        corner = i * z_step + j * rho_step + k
        opposite = corner + z_step + rho_step + 1
        most, least = max(xn, max(yn, wn)), min(xn, min(yn, wn))
        at[0, n], at[3, n] = corner, opposite
        at[1, n] = corner + (z_step if xn == most else rho_step if yn == most else 1)
        at[2, n] = opposite - (1 if wn == least else rho_step if yn == least else z_step)


@jit
def _slabs(q: Array, work: Array, out: Array) -> None:
    """Stage 5: m2 = 0 is a weaker hypothesis. Within SLAB of a step from it the slab, at 1 microsecond, is the tighter bound."""
    z, rim, m1, m2, theta = work[Z], work[RIM], work[M1], work[M2], work[PLACE + 2]
    for n in range(q.size):
        if (theta[n] < SLAB or m2[n] == 0.0) and z[n] > 0.0 and m1[n] > -rim[n]:
            out[n] = max(out[n], slab_radius(1.0 - q[n], min(m1[n], rim[n] * (1.0 - 1e-7)), z[n]))


@jit
def _cuts(q: Array, work: Array, nodes: Array, at: Indices) -> None:
    """Stage 6: fetch the nodes."""
    m1, m2 = work[M1], work[M2]
    first, second, third, fourth = at[0], at[1], at[2], at[3]
    r1, r2, r3, r4 = work[R], work[R + 1], work[R + 2], work[R + 3]
    s1, s2, s3, s4 = work[S], work[S + 1], work[S + 2], work[S + 3]
    for n in range(q.size):
        eps = 1.0 - q[n]
        r1[n], s1[n] = nodes[first[n], 0], cut_surplus(nodes, first[n], eps, m1[n], m2[n])
        r2[n], s2[n] = nodes[second[n], 0], cut_surplus(nodes, second[n], eps, m1[n], m2[n])
        r3[n], s3[n] = nodes[third[n], 0], cut_surplus(nodes, third[n], eps, m1[n], m2[n])
        r4[n], s4[n] = nodes[fourth[n], 0], cut_surplus(nodes, fourth[n], eps, m1[n], m2[n])


@jit
def _chords(work: Array, out: Array) -> None:
    """Stage 7: the largest radius that a node, or two, or one and (0, z), certify (no branches)."""
    z = work[Z]
    r1, r2, r3, r4 = work[R], work[R + 1], work[R + 2], work[R + 3]
    s1, s2, s3, s4 = work[S], work[S + 1], work[S + 2], work[S + 3]
    for n in range(out.size):
        zn, a, b, c, d = z[n], r1[n], r2[n], r3[n], r4[n]
        # A node's radius obeys Cohen's bound too: p(r) >= Phi(z - r).
        x1, x2, x3, x4 = probit(s1[n], zn - a), probit(s2[n], zn - b), probit(s3[n], zn - c), probit(s4[n], zn - d)
        best = max(max(alone(a, x1, zn), alone(b, x2, zn)), max(alone(c, x3, zn), alone(d, x4, zn)))
        best = max(best, max(between(a, x1, b, x2), between(a, x1, c, x3)))
        best = max(best, max(between(a, x1, d, x4), between(b, x2, c, x3)))
        best = max(best, max(between(b, x2, d, x4), between(c, x3, d, x4)))
        # NaN and 0 stay as they are.
        out[n] = max(out[n], best * DOWN) if zn > 0.0 else out[n]


@jit
def lookup_many(q: Array, m1: Array, m2: Array, scale: Array, position: Array, nodes: Array, out: Array) -> None:
    """Radii (sigma = 1) never above the exact ones. NaN gives NaN, q <= 1/2 gives 0; q < 1 is the caller's to check.

    `nodes` has the shape (z, rho, theta, 5): radius, c, a0, a1, a2; `position` and `scale` have a row an axis (z, rho, `turn`).
    m2 < 0 counts as 0; beyond the rim m1 and m2 are reduced to it. Stages run over blocks: most of them compile to vector code, and
    many gathers are under way at once.
    """
    flat = nodes.reshape(-1, 5)
    block = min(BLOCK, out.size)
    work, at = np.empty((ROWS, block)), np.empty((4, block), np.int64)
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        part = q[start:stop]
        _quantiles(part, m1[start:stop], m2[start:stop], work, out[start:stop])
        _reduce(part.size, work)
        for axis in range(3):
            _place(part.size, work[PLACE + axis], scale[axis], position[axis], nodes.shape[axis])
        _choose(part.size, work, nodes.shape[1], nodes.shape[2], at)
        _slabs(part, work, out[start:stop])
        _cuts(part, work, flat, at)
        _chords(work, out[start:stop])


@jit
def lookup(q: float, m1: float, m2: float, scale: Array, position: Array, nodes: Array) -> float:
    """`lookup_many` of one query."""
    out = np.empty(1)
    lookup_many(np.full(1, q), np.full(1, m1), np.full(1, m2), scale, position, nodes, out)
    radius: float = out[0]
    return radius
