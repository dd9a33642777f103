"""Integrals of the tail dual over a stretch of thresholds, for a shift a along e and b > 0 across it (sigma = 1).

With L(t, s) = exp(a t + b s - (a^2 + b^2)/2) and a level Lam = exp(x), the worst set on the stretch is {L > Lam}: given t it holds
with probability Phi(d1 - b) before the shift and Phi(d1) after it, d1 = (a t - a^2/2 - x)/b + b/2. Over lo <= t < hi:

    shifted = int phi(t - a) Phi(d1),   mass = int phi(t) Phi(d1 - b),   density = int phi(t) phi(d1 - b)/b = -d mass / dx,

and E[(L - Lam)_+; lo <= t < hi] = shifted - Lam mass. Only where |d1| is small does quadrature have work to do: beyond, Phi is 0
or 1 to 1e-17 and the integrals are normal cdfs. Panels of a fixed length in t and in d1 together reach 1e-14.
"""

import math

import numpy as np

from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper

# Gauss-Legendre on [0, 1].
_points, _weights = np.polynomial.legendre.leggauss(12)
POINTS = (_points + 1.0) / 2.0
WEIGHTS = _weights / 2.0
PANEL = 2.5
# Phi(-REACH) = 1e-17.
REACH = 8.5


@jit
def stretch(a: float, b: float, x: float, lo: float, hi: float) -> tuple[float, float, float]:
    """(shifted, mass, density) over lo <= t < hi; a >= 0, b > 0, x = log Lam finite."""
    shifted = mass = boundary = 0.0
    left, right = max(lo, -REACH), min(hi, a + REACH)
    if a > 0.0:
        # d1 - b >= REACH: all of it; d1 <= -REACH: nothing.
        middle = 0.5 * a + x / a
        full = middle + (REACH + 0.5 * b) * b / a
        if full < hi:
            start = max(full, lo)
            shifted += upper(start - a) - upper(hi - a)
            mass += upper(start) - upper(hi)
            right = min(right, full)
        left = max(left, middle - (REACH + 0.5 * b) * b / a)
    if left >= right:
        return shifted, mass, boundary
    count = math.ceil((right - left) * (1.0 + a / b) / PANEL)
    width = (right - left) / count
    for panel in range(count):
        start = left + panel * width
        for i in range(POINTS.size):
            t = start + width * POINTS[i]
            d1 = (a * t - 0.5 * a * a - x) / b + 0.5 * b
            w = width * WEIGHTS[i]
            shifted += w * density(t - a) * upper(-d1)
            mass += w * density(t) * upper(b - d1)
            boundary += w * density(t) * density(d1 - b) / b
    return shifted, mass, boundary
