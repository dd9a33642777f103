"""Small radii: the dual in what L_r leaves of 1 + r u1, where floats keep little of L_r itself.

    L_r(t) = 1 + r t + r^2 l(t),    l(t) = s^2 g(r s) - 1/2,    s = t - r/2,    g(x) = (e^x - 1 - x) / x^2.

With a0 = 1 + r^2 b0, a1 = r + r^2 b1, a2 = r^2 b2 the worst classifier's curve is c(t) = (b0 + b1 t - l(t)) / b2, and the dual
value less 1/2 is

    (q - 1/2) + r m1 + r^2 D,    D = b0 (E h - eps) + b1 (E h u1 + m1) + b2 (E h u2 + m2) - E h l:

next to q = 1/2 all of it is of the order of r, and D of order one. Newton's step for b is that for a, with l in place of L.
"""

import math

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

from .moments import NO_MOMENTS, PANEL, POINTS, WEIGHTS, Moments

# Up to this r the series below is good to the last digit: |r s| < 2.
SMALL = 0.2
# Beyond LAST nothing is left of the normal density; where |c| > LIMIT, h is 0 or 1.
LAST = 9.5
LIMIT = 8.5


@jit
def remainder(t: float, r: float) -> float:
    """l(t)."""
    s = t - 0.5 * r
    x = r * s
    g = 0.0
    # g(x) = 1/2 + x/6 + x^2/24 + ... by Horner's rule.
    for k in range(26, 2, -1):
        g = 1.0 + x / k * g
    return s * s * 0.5 * g - 0.5


@jit
def remainder_slope(t: float, r: float) -> float:
    """l'(t)."""
    return math.expm1(r * (t - 0.5 * r)) / r


@jit
def _curve(b: Array, r: float, t: float) -> float:
    return float((b[0] + b[1] * t - remainder(t, r)) / b[2])


@jit
def _bisect(b: Array, r: float, level: float, above: float, below: float) -> tuple[float, float]:
    """`above` and `below`, where c is above and below the level, brought together."""
    for _ in range(60):
        middle = 0.5 * (above + below)
        if _curve(b, r, middle) > level:
            above = middle
        else:
            below = middle
    return above, below


@jit
def _panel(b: Array, r: float, left: float, right: float, whole: bool, m: Moments) -> Moments:
    """`m` with the integrals over left < t < right added; `whole` where h = 1."""
    d = right - left
    h, h_u1, h_u2, hl, hl_shift, w0, wt, wc, wtt, wtc, wcc, _, _, _ = m
    for i in range(POINTS.size):
        t = left + d * POINTS[i]
        p = d * WEIGHTS[i] * density(t)
        rest = remainder(t, r)
        c = (b[0] + b[1] * t - rest) / b[2]
        mass = p if whole else p * upper(c)
        w = 0.0 if whole else p * density(c)
        h += mass
        h_u1 += mass * t
        h_u2 -= w
        hl += mass * rest
        hl_shift += mass * (1.0 + r * t + r * r * rest) * (t - r)
        w0 += w
        wt += w * t
        wc += w * c
        wtt += w * t * t
        wtc += w * t * c
        wcc += w * c * c
    return Moments(h, h_u1, h_u2, hl, hl_shift, w0, wt, wc, wtt, wtc, wcc, 0.0, 0.0, 0.0)


@jit
def _beyond(b: Array, r: float, outer: float, side: float, m: Moments) -> Moments:
    """`m` with the integrals from `outer` on to the right (`side` 1) or left (-1) added, h = 1."""
    t = side * LAST
    while side * t > side * outer:
        new = side * max(side * outer, side * t - 1.0)
        m = _panel(b, r, min(t, new), max(t, new), True, m)
        t = new
    return m


@jit
def outside(w1: float, w2: float, r: float) -> Moments:
    """The moments of h = 1 outside [w2, w1], 0 inside; `hl` is E h l."""
    b = np.ones(3)
    return _beyond(b, r, w2, -1.0, _beyond(b, r, w1, 1.0, NO_MOMENTS))


@jit
def small_moments(b: Array, r: float) -> Moments:
    """The moments at multipliers `b` with b2 > 0, 0 < r <= SMALL, to some 1e-15; `hl` is E h l, and the k are left out."""
    m = NO_MOMENTS
    top = math.log1p(r * b[1]) / r + 0.5 * r if r * b[1] > -1.0 else -LAST
    top = min(max(top, -LAST), LAST)
    for side in (-1.0, 1.0):
        end = side * LAST
        # From the top outwards c falls: h is 0 up to `inner`, 1 from `outer` on.
        inner = outer = end
        if _curve(b, r, end) < -LIMIT:
            outer = top if _curve(b, r, top) < -LIMIT else _bisect(b, r, -LIMIT, top, end)[1]
        if _curve(b, r, end) < LIMIT:
            inner = top if _curve(b, r, top) < LIMIT else _bisect(b, r, LIMIT, top, end)[0]
        m = _beyond(b, r, outer, side, m)
        t = outer
        while side * t > side * inner:
            length = PANEL / (1.0 + abs(b[1] - remainder_slope(t, r)) / b[2])
            new = side * max(side * inner, side * t - length)
            m = _panel(b, r, min(t, new), max(t, new), False, m)
            t = new
    return m
