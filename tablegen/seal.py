"""From a solution to a node as stored: a1 and a2 rounded to float32, their hinge bounded, the radius lowered to match.

a0 stays float64: at small radii the cut lives on the difference between a0 + a1 u1 and L_r, which float32 would wipe out.
"""

import math

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

from .dual import hinge
from .moments import Moments, compute_moments

# Relative allowance of a hinge computed by quadrature: the panels' error and the rounding of its sum, with room to spare.
MARGIN = 1e-13
# A step of the multipliers that shifts c(t) by less than this is followed to second order, without another quadrature.
NEAR = 2e-5


@jit
def _line_hinge(a0: float, a1: float, r: float) -> tuple[float, float]:
    """(E(L_r - a0 - a1 u)_+, sum of the magnitudes it is made of) for a2 = 0: L_r - a0 - a1 u > 0 outside [w2, w1]."""
    w1 = math.log(a0) / r + 0.5 * r
    w2 = -math.inf
    if a1 > 0.0:
        # As in dual: in logarithms from the top for the right edge, on the difference itself from the far left for the left one.
        w1 = (math.log(a1 / r) + 0.5 * r * r) / r
        for _ in range(100):
            y = a0 + a1 * w1
            step = (math.log(y) - r * w1 + 0.5 * r * r) / (a1 / y - r)
            w1 -= step
            if abs(step) <= 1e-15 * abs(w1):
                break
        w2 = -a0 / a1
        for _ in range(100):
            e = math.exp(r * w2 - 0.5 * r * r)
            step = (e - a0 - a1 * w2) / (r * e - a1)
            w2 -= step
            if abs(step) <= 1e-15 * abs(w2):
                break
    shifted = upper(w1 - r) + upper(r - w2)
    mass = upper(w1) + upper(-w2)
    pull = density(w1) - density(w2)
    return shifted - a0 * mass - a1 * pull, shifted + a0 * mass + a1 * (density(w1) + density(w2))


@jit
def _size(a: Array, m: Moments) -> float:
    """The sum of the magnitudes that a hinge is made of."""
    return float(m.hl + a[0] * m.h + a[1] * abs(m.h_u1) - a[2] * m.h_u2)


@jit
def _hinge_and_allowance(a: Array, r: float, z: float) -> tuple[float, float]:
    """(estimate of E(L_r - a.(1, u))_+, allowance for its error)."""
    if a[2] == 0.0:
        value, size = _line_hinge(a[0], a[1], r)
    else:
        m = compute_moments(a, r, z)
        value, size = hinge(a, m), _size(a, m)
    return value, MARGIN * size


@jit
def shortfall(eps: float, m1: float, m2: float, a: Array, c: float) -> float:
    """By how much the stored cut misses 1/2 at its own node, the look-up's rounding allowance and a little more included."""
    t0: float = a[0] * eps
    t1: float = a[1] * m1
    t2: float = a[2] * m2
    return max(0.0, -(0.5 - c - t0 + t1 + t2 - 4e-15 * (1.0 + c + t0 + abs(t1) + t2)))


@jit
def seal(eps: float, m1: float, m2: float, z: float, r: float, slope: float, a: Array) -> tuple[float, float]:
    """Round `a` in place; return (radius, c): c bounds the hinge there, and the cut certifies the radius at its own node.

    `slope` is -d(dual value)/dr, at least roughly: it only decides how far a radius is lowered.
    """
    a[1] = np.float64(np.float32(a[1]))
    a[2] = np.float64(np.float32(a[2]))
    value, allowance = _hinge_and_allowance(a, r, z)
    for _ in range(5):
        missing = shortfall(eps, m1, m2, a, value + allowance)
        if missing == 0.0:
            break
        r -= 1.01 * missing / slope
        value, allowance = _hinge_and_allowance(a, r, z)
    return r, value + allowance


@jit
def seal_nearby(eps: float, m1: float, m2: float, z: float, r: float, a: Array, m: Moments, at: Array) -> tuple[float, float]:
    """`seal`, from moments `m` taken a small step away, at multipliers and radius `at` = (a0, a1, a2, r)."""
    d0 = a[0] - at[0]
    d1 = np.float64(np.float32(a[1])) - at[1]
    d2 = np.float64(np.float32(a[2])) - at[2]
    dr = r - at[3]
    if not abs(d0) + abs(d1) + abs(d2) < NEAR * a[2]:
        return seal(eps, m1, m2, z, r, m.hl_shift, a)
    a[1] = at[1] + d1
    a[2] = at[2] + d2
    value, size = hinge(at, m), _size(at, m)
    first = -d0 * m.h - d1 * m.h_u1 - d2 * m.h_u2
    square = m.w * d0 * d0 + m.wtt * d1 * d1 + m.wcc * d2 * d2 + 2.0 * (m.wt * d0 * d1 - m.wc * d0 * d2 - m.wtc * d1 * d2)
    cross = -(m.k * d0 + m.kt * d1 - m.kc * d2) * dr
    c = value + first + m.hl_shift * dr + (0.5 * square + cross) / at[2] + MARGIN * size
    down = 1.01 * shortfall(eps, m1, m2, a, c) / m.hl_shift
    return r - down, c - m.hl_shift * down
