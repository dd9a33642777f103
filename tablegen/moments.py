"""The integrals of the worst classifier for given multipliers, by quadrature.

Notation (sigma = 1). `a = (a0, a1, a2)` are the multipliers, `L(t) = exp(r t - r^2/2)` the likelihood ratio of the shift, and
`h = 1{L(u1) > a0 + a1 u1 + a2 u2}` the complement of the worst classifier for `a`: given `u1 = t` it holds when `u2 < -c(t)`,
`c(t) = (a0 + a1 t - L(t)) / a2`.
"""

import math
from typing import NamedTuple

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

# Gauss-Legendre on [0, 1]; panels are short enough (see `_panel_length`) for 12 points to reach 1e-14.
_points, _weights = np.polynomial.legendre.leggauss(12)
POINTS = (_points + 1.0) / 2.0
WEIGHTS = _weights / 2.0
PANEL = 3.0


class Moments(NamedTuple):
    """The integrals that the dual, its gradient and its Hessian are made of."""

    h: float
    """E h"""
    h_u1: float
    """E h u1"""
    h_u2: float
    """E h u2"""
    hl: float
    """E h L"""
    hl_shift: float
    """E h L (u1 - r)"""
    # Along the boundary, with w = phi(t) phi(c(t)), for the Hessian:
    w: float
    """int w dt"""
    wt: float
    """int w t dt"""
    wc: float
    """int w c dt"""
    wtt: float
    """int w t^2 dt"""
    wtc: float
    """int w t c dt"""
    wcc: float
    """int w c^2 dt"""
    # and for the gradient's derivative in r:
    k: float
    """int w L (t - r) dt"""
    kt: float
    """int w L (t - r) t dt"""
    kc: float
    """int w L (t - r) c dt"""


NO_MOMENTS = Moments(*(0.0,) * len(Moments._fields))


@jit
def _right_crossing(b0: float, b1: float, logk: float, r: float, level: float) -> float:
    """The largest t with b0 + b1 t - exp(logk + r t) = level; -inf where there is none."""
    if b1 <= 0.0:
        return (math.log(b0 - level) - logk) / r if b0 > level else -math.inf
    t = (math.log(b1 / r) - logk) / r
    if not b0 - level + b1 * t - b1 / r > 0.0:
        return -math.inf
    # In logarithms the function is concave and nearly linear: Newton from the top lands right of the root, then walks down.
    for _ in range(60):
        y = b0 - level + b1 * t
        slope = b1 / y - r
        if slope >= 0.0:
            break
        step = (math.log(y) - logk - r * t) / slope
        t -= step
        if abs(step) < 1e-4:
            break
    return t


@jit
def _left_crossing(b0: float, b1: float, logk: float, r: float, level: float) -> float:
    """A t at or just left of the least solution of the same equation; -inf where b1 = 0, +inf where there is none."""
    if b1 <= 0.0:
        return -math.inf
    top = (math.log(b1 / r) - logk) / r
    if not b0 - level + b1 * top - b1 / r > 0.0:
        return math.inf
    t = (level - b0) / b1
    for _ in range(60):
        e = math.exp(logk + r * t)
        slope = b1 - r * e
        if slope <= 0.0:
            break
        step = (b0 - level + b1 * t - e) / slope
        t -= step
        if abs(step) < 1e-4:
            break
    return t


@jit
def _panel_length(t: float, b1: float, logk: float, r: float) -> float:
    """How far a panel that ends at t, its steepest end, may reach: three units of the curve, less where exp(r t) bends it."""
    e = math.exp(logk + r * t)
    root = math.sqrt(e)
    return PANEL / (1.0 + abs(b1 - r * e) + 0.25 * r * max(root, min(1.0, math.sqrt(root))))


@jit
def _panel(a2: float, b0: float, b1: float, logk: float, r: float, left: float, right: float, m: Moments) -> Moments:
    """`m` with the integrals over left < t < right added."""
    h0 = h1 = h2 = l0 = l1 = 0.0
    w0 = w1 = wc = w11 = w1c = wcc = k0 = k1 = kc = 0.0
    for i in range(POINTS.size):
        t = left + (right - left) * POINTS[i]
        e = math.exp(logk + r * t)
        c = b0 + b1 * t - e
        p = WEIGHTS[i] * density(t)
        h = p * upper(c)
        w = p * density(c)
        shift = t - r
        hl = h * a2 * e
        k = w * a2 * e * shift
        h0 += h
        h1 += h * t
        h2 -= w
        l0 += hl
        l1 += hl * shift
        w0 += w
        w1 += w * t
        wc += w * c
        w11 += w * t * t
        w1c += w * t * c
        wcc += w * c * c
        k0 += k
        k1 += k * t
        kc += k * c
    d = right - left
    return Moments(
        m.h + d * h0,
        m.h_u1 + d * h1,
        m.h_u2 + d * h2,
        m.hl + d * l0,
        m.hl_shift + d * l1,
        m.w + d * w0,
        m.wt + d * w1,
        m.wc + d * wc,
        m.wtt + d * w11,
        m.wtc + d * w1c,
        m.wcc + d * wcc,
        m.k + d * k0,
        m.kt + d * k1,
        m.kc + d * kc,
    )


@jit
def compute_moments(a: Array, r: float, z: float) -> Moments:
    """The moments at multipliers `a` with a2 > 0 and r > 0; relative to phi(z), z = Phi^-1(q), their error is some 1e-14.

    Only |c(t)| < limit needs quadrature: below it h = 1 and the tails are closed forms, above it h = 0. Within, c runs through
    both crossings of zero; panels follow each branch inwards from its steep end, so their number does not depend on the slope.
    """
    a2 = a[2]
    b0 = a[0] / a2
    b1 = a[1] / a2
    logk = -0.5 * r * r - math.log(a2)
    limit = math.sqrt(z * z + 72.0)
    last = max(limit, r + 8.5)
    right = _right_crossing(b0, b1, logk, r, -limit)
    left = _left_crossing(b0, b1, logk, r, -limit)
    if right == -math.inf:
        right = left = -limit
    h = h_u1 = hl = hl_shift = 0.0
    if right < last:
        h += upper(right)
        h_u1 += density(right)
        hl += upper(right - r)
        hl_shift += density(right - r)
    if left > -limit:
        h += upper(-left)
        h_u1 -= density(left)
        hl += upper(r - left)
        hl_shift -= density(left - r)
    moments = Moments(h, h_u1, 0.0, hl, hl_shift, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    right = min(right, last)
    left = max(left, -limit)
    top = left
    if b1 > 0.0:
        top = min(max((math.log(b1 / r) - logk) / r, left), right)
    stop = max(_right_crossing(b0, b1, logk, r, limit), top)
    while right > stop:
        t = max(stop, right - _panel_length(right, b1, logk, r))
        moments = _panel(a2, b0, b1, logk, r, t, right, moments)
        right = t
    stop = min(_left_crossing(b0, b1, logk, r, limit), top)
    while left < stop:
        t = min(stop, left + _panel_length(left, b1, logk, r))
        moments = _panel(a2, b0, b1, logk, r, left, t, moments)
        left = t
    return moments
