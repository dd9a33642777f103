"""The concave dual at a fixed radius: moments of the worst classifier by quadrature, the maximum by safeguarded Newton.

Notation (sigma = 1). `a = (a0, a1, a2)` are the multipliers, `L(t) = exp(r t - r^2/2)` the likelihood ratio of the shift, and
`h = 1{L(u1) > a0 + a1 u1 + a2 u2}` the complement of the worst classifier for `a`: given `u1 = t` it holds when `u2 < -c(t)`,
`c(t) = (a0 + a1 t - L(t)) / a2`. With `eps = 1 - q` the dual value is `1 - a0 eps + a1 m1 + a2 m2 - E(L - a.(1, u))_+`; nothing
in it cancels as q -> 1. A kernel's `a` is a float64 array of three, changed in place; `moments` is an array of `SIZE`.
"""

import math

import numpy as np
import numpy.typing as npt

from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

Array = npt.NDArray[np.float64]

# Gauss-Legendre on [0, 1]; panels are short enough (see `_panel_length`) for 12 points to reach 1e-14.
_points, _weights = np.polynomial.legendre.leggauss(12)
POINTS = (_points + 1.0) / 2.0
WEIGHTS = _weights / 2.0
PANEL = 3.0

# Layout of `moments`: E h (1, u1, u2), E h L (1, u1 - r); then, with w = phi(t) phi(c(t)), the boundary integrals of
# w (1, t, c, t^2, t c, c^2) for the Hessian and of w L (t - r) (1, t, c) for its derivative in r.
SIZE = 14
STALLED = math.inf


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
def _panel(a2: float, b0: float, b1: float, logk: float, r: float, left: float, right: float, moments: Array) -> None:
    """Add the integrals over left < t < right."""
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
    moments[0] += d * h0
    moments[1] += d * h1
    moments[2] += d * h2
    moments[3] += d * l0
    moments[4] += d * l1
    moments[5] += d * w0
    moments[6] += d * w1
    moments[7] += d * wc
    moments[8] += d * w11
    moments[9] += d * w1c
    moments[10] += d * wcc
    moments[11] += d * k0
    moments[12] += d * k1
    moments[13] += d * kc


@jit
def compute_moments(a: Array, r: float, z: float, moments: Array) -> None:
    """Fill `moments` for a2 > 0, r > 0; relative to phi(z), z = Phi^-1(q), the error is some 1e-14.

    Only |c(t)| < reach needs quadrature: below it h = 1 and the tails are closed forms, above it h = 0. Within, c runs through
    both crossings of zero; panels follow each branch inwards from its steep end, so their number does not depend on the slope.
    """
    a2 = a[2]
    b0 = a[0] / a2
    b1 = a[1] / a2
    logk = -0.5 * r * r - math.log(a2)
    reach = math.sqrt(z * z + 72.0)
    last = max(reach, r + 8.5)
    right = _right_crossing(b0, b1, logk, r, -reach)
    left = _left_crossing(b0, b1, logk, r, -reach)
    if right == -math.inf:
        right = left = -reach
    moments[:] = 0.0
    if right < last:
        moments[0] += upper(right)
        moments[1] += density(right)
        moments[3] += upper(right - r)
        moments[4] += density(right - r)
    if left > -reach:
        moments[0] += upper(-left)
        moments[1] -= density(left)
        moments[3] += upper(r - left)
        moments[4] -= density(left - r)
    right = min(right, last)
    left = max(left, -reach)
    top = left
    if b1 > 0.0:
        top = min(max((math.log(b1 / r) - logk) / r, left), right)
    stop = max(_right_crossing(b0, b1, logk, r, reach), top)
    while right > stop:
        t = max(stop, right - _panel_length(right, b1, logk, r))
        _panel(a2, b0, b1, logk, r, t, right, moments)
        right = t
    stop = min(_left_crossing(b0, b1, logk, r, reach), top)
    while left < stop:
        t = min(stop, left + _panel_length(left, b1, logk, r))
        _panel(a2, b0, b1, logk, r, left, t, moments)
        left = t


@jit
def excess(eps: float, m1: float, m2: float, a: Array, moments: Array) -> float:
    """The dual value at `a`, less 1/2: a valid lower bound of p* - 1/2 for any a >= 0."""
    hinge: float = moments[3] - a[0] * moments[0] - a[1] * moments[1] - a[2] * moments[2]
    return float(0.5 - hinge - a[0] * eps + a[1] * m1 + a[2] * m2)


@jit
def newton_step(moments: Array, a: Array, g0: float, g1: float, g2: float, free: bool, step: Array) -> bool:
    """Solve -Hessian step = (g0, g1, g2) by Cholesky, with step[1] = 0 unless `free`. False where it is not positive definite."""
    m01, m02 = moments[6], -moments[7]
    m11, m12, m22 = moments[8], -moments[9], moments[10]
    m00 = moments[5]
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
def maximise(eps: float, m1: float, m2: float, z: float, r: float, a: Array, moments: Array) -> tuple[float, float, int]:
    """Maximise the dual over a0, a2 > 0, a1 >= 0 at radius r, from `a`; `a` and `moments` are left at the best point found.

    Returns the excess there, the estimated gap to the true maximum (half the squared Newton decrement; inf where the iteration
    stalled) and the number of Newton steps. The multiplier a1 sits at its bound 0 where the constraint on m1 is slack.
    """
    trial = np.empty(3)
    step = np.empty(3)
    trial_moments = np.empty(SIZE)
    compute_moments(a, r, z, moments)
    value = excess(eps, m1, m2, a, moments)
    previous = math.inf
    for iteration in range(100):
        g0 = moments[0] - eps
        g1 = moments[1] + m1
        g2 = moments[2] + m2
        free = a[1] > 0.0 or g1 > 0.0
        if not newton_step(moments, a, g0, g1, g2, free, step):
            return value, STALLED, iteration
        if a[1] == 0.0 and step[1] < 0.0:
            newton_step(moments, a, g0, g1, g2, False, step)
        gap = 0.5 * (g0 * step[0] + g1 * step[1] + g2 * step[2])
        # Done, or down at the noise of the moments, where Newton no longer converges quadratically.
        if gap < 1e-13 or (previous < 1e-9 and gap > 0.1 * previous):
            return value, gap, iteration
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
            compute_moments(trial, r, z, trial_moments)
            trial_value = excess(eps, m1, m2, trial, trial_moments)
            # Near the optimum the gain drowns in rounding: accept what does not lose more than that.
            if trial_value >= value + 0.1 * scale * gap or (gap < 1e-9 and trial_value >= value - 1e-13):
                break
            scale *= 0.5
        else:
            return value, STALLED if gap > 1e-9 else gap, iteration
        a[:] = trial
        moments[:] = trial_moments
        value = trial_value
    return value, STALLED, 100
