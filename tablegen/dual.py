"""The concave dual at a fixed radius: moments of the worst classifier by quadrature, the maximum by safeguarded Newton.

Notation (sigma = 1). `a = (a0, a1, a2)` are the multipliers, `L(t) = exp(r t - r^2/2)` the likelihood ratio of the shift, and
`h = 1{L(u1) > a0 + a1 u1 + a2 u2}` the complement of the worst classifier for `a`: given `u1 = t` it holds when `u2 < -c(t)`,
`c(t) = (a0 + a1 t - L(t)) / a2`. With `eps = 1 - q` the dual value is `1 - a0 eps + a1 m1 + a2 m2 - E(L - a.(1, u))_+`; nothing
in it cancels as q -> 1. A kernel's `a` is a float64 array of three, changed in place.
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

STALLED = math.inf


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


class Maximum(NamedTuple):
    """Where a maximisation ended."""

    surplus: float
    gap: float
    """Estimated distance to the true maximum, half the squared Newton decrement; inf where the iteration stalled."""
    steps: int
    moments: Moments


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


@jit
def hinge(a: Array, m: Moments) -> float:
    """E(L - a.(1, u))_+."""
    return float(m.hl - a[0] * m.h - a[1] * m.h_u1 - a[2] * m.h_u2)


@jit
def surplus(eps: float, m1: float, m2: float, a: Array, m: Moments) -> float:
    """The dual value at `a`, less 1/2: a valid lower bound of p* - 1/2 for any a >= 0."""
    return float(0.5 - hinge(a, m) - a[0] * eps + a[1] * m1 + a[2] * m2)


@jit
def newton_step(m: Moments, a: Array, g0: float, g1: float, g2: float, free: bool, step: Array) -> bool:
    """Solve -Hessian step = (g0, g1, g2) by Cholesky, with step[1] = 0 unless `free`. False where it is not positive definite."""
    m00, m01, m02 = m.w, m.wt, -m.wc
    m11, m12, m22 = m.wtt, -m.wtc, m.wcc
    if not m00 > 0.0:
        return False
    l2 = m02 / m00
    d2 = m22 - l2 * m02
    y2 = g2 - l2 * g0
    step[1] = 0.0
    if free:
        l1 = m01 / m00
        d1 = m11 - l1 * m01
        if not d1 > 1e-15 * m11:
            return False
        e = m12 - l1 * m02
        y1 = g1 - l1 * g0
        d2 -= e / d1 * e
        y2 -= e / d1 * y1
        if not d2 > 1e-15 * m22:
            return False
        step[2] = y2 / d2
        step[1] = (y1 - e * step[2]) / d1
        step[0] = g0 / m00 - l1 * step[1] - l2 * step[2]
    else:
        if not d2 > 1e-15 * m22:
            return False
        step[2] = y2 / d2
        step[0] = g0 / m00 - l2 * step[2]
    for i in range(3):
        step[i] *= a[2]
    return True


@jit
def maximise(eps: float, m1: float, m2: float, z: float, r: float, a: Array) -> Maximum:
    """Maximise the dual over a0, a2 > 0, a1 >= 0 at radius r, from `a`, which is left at the best point found.

    The multiplier a1 sits at its bound 0 where the constraint on m1 is slack.
    """
    trial = np.empty(3)
    step = np.empty(3)
    m = compute_moments(a, r, z)
    value = surplus(eps, m1, m2, a, m)
    previous = math.inf
    for iteration in range(100):
        g0 = m.h - eps
        g1 = m.h_u1 + m1
        g2 = m.h_u2 + m2
        free = a[1] > 0.0 or g1 > 0.0
        if not newton_step(m, a, g0, g1, g2, free, step):
            return Maximum(value, STALLED, iteration, m)
        if a[1] == 0.0 and step[1] < 0.0:
            newton_step(m, a, g0, g1, g2, False, step)
        gap = 0.5 * (g0 * step[0] + g1 * step[1] + g2 * step[2])
        # Done, or down at the noise of the moments, where Newton no longer converges quadratically.
        if gap < 1e-13 or (previous < 1e-9 and gap > 0.1 * previous):
            return Maximum(value, gap, iteration, m)
        previous = gap
        # Stay inside: shrink a0 and a2 by at most five, let a1 reach its bound.
        scale = 1.0
        if step[0] < 0.0:
            scale = min(scale, -0.8 * a[0] / step[0])
        if step[2] < 0.0:
            scale = min(scale, -0.8 * a[2] / step[2])
        to_bound = -a[1] / step[1] if step[1] < 0.0 else math.inf
        scale = min(scale, to_bound)
        for _ in range(40):
            trial[:] = a + scale * step
            if scale == to_bound or trial[1] < 0.0:
                trial[1] = 0.0
            trial_m = compute_moments(trial, r, z)
            trial_value = surplus(eps, m1, m2, trial, trial_m)
            # Near the optimum the gain drowns in rounding: accept what does not lose more than that.
            if trial_value >= value + 0.1 * scale * gap or (gap < 1e-9 and trial_value >= value - 1e-13):
                break
            scale *= 0.5
        else:
            return Maximum(value, STALLED if gap > 1e-9 else gap, iteration, m)
        a[:] = trial
        m = trial_m
        value = trial_value
    return Maximum(value, STALLED, 100, m)
