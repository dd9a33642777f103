"""One slab of the grid (fixed z) by continuation: Newton on all four unknowns from the neighbours' solutions, sealed as it goes.

Where the warm start fails, the robust search of `solve_node` takes over; such nodes are counted.
"""

import math

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

from .dual import newton_step, surplus
from .moments import NO_MOMENTS, Moments, compute_moments
from .node import TOLERANCE, active, solve_node
from .seal import seal, seal_nearby

# A Newton step this small (relative, and in the root of the gap) leaves an error of its square: no need to look again.
LAST_STEP = 1e-6
# Rows of constant rho that are solved from scratch before there is enough to extrapolate from.
COLD_ROWS = 4


@jit
def solve_nearby(eps: float, m1: float, m2: float, z: float, r: float, a: Array, at: Array) -> tuple[float, Moments]:
    """Newton on (a0, a1, a2, r) from a nearby start; returns r, or NaN where it does not converge at once, and moments.

    `a` is updated; the moments are those of the last evaluation, a step away at multipliers and radius `at` = (a0, a1, a2, r).
    """
    step = np.empty(3)
    drift = np.empty(3)
    m = NO_MOMENTS
    for _ in range(8):
        m = compute_moments(a, r, z)
        at[:3] = a
        at[3] = r
        g0, g1, g2 = m.h - eps, m.h_u1 + m1, m.h_u2 + m2
        free = a[1] > 0.0 or g1 > 0.0
        if not newton_step(m, a, g0, g1, g2, free, step):
            return math.nan, m
        if a[1] == 0.0 and step[1] < 0.0:
            free = False
            newton_step(m, a, g0, g1, g2, free, step)
        # How the maximiser drifts with r: d(gradient)/dr = (k0, k1, -kc) / a2.
        newton_step(m, a, m.k / a[2], m.kt / a[2], -m.kc / a[2], free, drift)
        gap = 0.5 * (g0 * step[0] + g1 * step[1] + g2 * step[2])
        slope = m.hl_shift - (g0 * drift[0] + g1 * drift[1] + g2 * drift[2])
        shift = (surplus(eps, m1, m2, a, m) + gap) / slope
        if not (gap < 0.01 and abs(shift) < 0.2 * r):
            return math.nan, m
        small = abs(shift) < LAST_STEP * r and gap < LAST_STEP * LAST_STEP and (free or g1 <= 0.0)
        for i in range(3):
            # Where a1 reaches its bound it stops there, and the next step settles the rest.
            change = max(step[i] + shift * drift[i], -a[i]) if i == 1 else step[i] + shift * drift[i]
            if i != 1 and a[i] + change < 0.2 * a[i]:
                return math.nan, m
            small = small and abs(change) <= 10.0 * LAST_STEP * (a[i] + a[2])
            a[i] += change
        r += shift
        if small:
            return r, m
    return math.nan, m


@jit
def _extrapolate(past: Array, i: int, j: int, a: Array) -> float:
    """The next row's start from three solved rows (quadratic; a0 and a2 in logarithms); NaN where one is a slab or failed."""
    p, pp, ppp = past[(i - 1) % 3, j], past[(i - 2) % 3, j], past[(i - 3) % 3, j]
    if not (p[2] > 0.0 and pp[2] > 0.0 and ppp[2] > 0.0):
        return math.nan
    for k in (0, 2):
        a[k] = p[k] * (p[k] / pp[k]) ** 2 * (ppp[k] / pp[k])
    a[1] = max(0.0, 3.0 * p[1] - 3.0 * pp[1] + ppp[1])
    return float(3.0 * p[3] - 3.0 * pp[3] + ppp[3])


@jit
def solve_slab(z: float, rho: Array, theta: Array, out: Array) -> int:
    """Solve and seal every node of one z.

    Args:
        z: Phi^-1(q).
        rho, theta: the axes (theta in degrees).
        out: shape (rho, theta, 6), filled with radius, c, a0, a1, a2, status; status 0 and zeros where it did not converge.

    Returns:
        How many warm starts failed and went to the robust search.
    """
    eps, rim = upper(z), density(z)
    a = np.empty(3)
    at = np.empty(4)
    moments = NO_MOMENTS
    past = np.empty((3, theta.size, 4))
    robust = 0
    for i in range(rho.size):
        for j in range(theta.size):
            angle = math.pi * theta[j] / 180.0
            m1 = -rho[i] * rim * math.cos(angle)
            m2 = rho[i] * rim * math.sin(angle) if theta[j] < 180.0 else 0.0
            r = math.nan
            if i >= COLD_ROWS and m2 > 0.0:
                start = _extrapolate(past, i, j, a)
                if start > 0.0:
                    r, moments = solve_nearby(eps, m1, m2, z, start, a, at)
                robust += not r > 0.0
            if r > 0.0:
                status = active(a)
                solved = r
                past[i % 3, j, :3] = a
                r, c = seal_nearby(eps, m1, m2, z, r, a, moments, at)
            else:
                root = solve_node(eps, m1, m2, z, a)
                solved, status = root.r, root.status
                past[i % 3, j, :3] = a
                if not root.error <= TOLERANCE:
                    past[i % 3, j, :3] = 0.0
                    out[i, j, :] = 0.0
                    continue
                r, c = seal(eps, m1, m2, z, solved, root.slope, a)
            past[i % 3, j, 3] = solved
            out[i, j, 0], out[i, j, 1] = r, c
            out[i, j, 2:5] = a
            out[i, j, 5] = status
    return robust
