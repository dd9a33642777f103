"""From a solution to a node as stored: multipliers rounded to float32, their hinge bounded, the radius lowered to match."""

import math

import numpy as np

from runtime.jit import jit
from runtime.normal import density, upper

from .dual import SIZE, Array, compute_moments

# Relative allowance of a hinge computed by quadrature: the panels' error and the rounding of its sum, with room to spare.
MARGIN = 1e-13


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
def hinge(a: Array, r: float, z: float, moments: Array) -> tuple[float, float, float]:
    """(estimate of E(L_r - a.(1, u))_+, allowance for its error, its derivative in r)."""
    if a[2] == 0.0:
        value, size = _line_hinge(a[0], a[1], r)
        shift = 1e-7 * r
        return value, MARGIN * size, (_line_hinge(a[0], a[1], r + shift)[0] - value) / shift
    compute_moments(a, r, z, moments)
    value = moments[3] - a[0] * moments[0] - a[1] * moments[1] - a[2] * moments[2]
    size = moments[3] + a[0] * moments[0] + a[1] * abs(moments[1]) - a[2] * moments[2]
    return value, MARGIN * size, moments[4]


@jit
def seal(eps: float, m1: float, m2: float, z: float, r: float, a: Array) -> tuple[float, float]:
    """Round `a` to float32 in place; return (radius, c) such that the stored cut certifies the stored radius at its own node."""
    moments = np.empty(SIZE)
    for i in range(3):
        a[i] = np.float64(np.float32(a[i]))
    c = 0.0
    for _ in range(20):
        value, allowance, slope = hinge(a, r, z, moments)
        c = value + allowance
        t0, t1, t2 = a[0] * eps, a[1] * m1, a[2] * m2
        # The look-up's own plane, with a little more than its rounding allowance.
        s = 0.5 - c - t0 + t1 + t2 - 4e-15 * (1.0 + c + t0 + abs(t1) + t2)
        if s >= 0.0:
            break
        r += 1.01 * s / slope
    return r, c
