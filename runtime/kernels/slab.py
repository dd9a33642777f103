"""The radius where nothing is known across the perturbation (m2 = 0): Corollary 3.1, as a sound cut.

The optimum is a slab w2 <= u1 <= w1. Newton's method finds its edges and its radius; what is returned rests on the cut whose
multipliers are the line through L_r(w1) and L_r(w2), evaluated at the query (lookup/kernel.py, Cuts): an inexact root costs radius
only.
"""

import math

from .jit import jit
from .normal import density, upper, upper_quantile

# Relative allowance for a sum of a few rounded products (each costs 1.1e-16), and for a root computed from it.
ROUNDING = 2e-15
DOWN = 1.0 - 1e-14


@jit
def slab_edges(eps: float, m1: float, z: float, tolerance: float) -> tuple[float, float]:
    """(w1, w2) with P(u > w1) + P(u < w2) = eps and phi(w1) - phi(w2) = -m1, for |m1| < phi(z), z = Phi^-1(1 - eps).

    They are taken one Newton step behind the first that changes the smaller tail by less than `tolerance` of itself; with 0, at
    the last digit.
    """
    # The unknown is the tail mass beyond the far edge, the smaller one: it alone carries its own relative accuracy.
    gradient = abs(m1)
    lo, hi = 0.0, 0.5 * eps
    small = 0.25 * eps * (1.0 - gradient / density(z))
    near = far = z
    step = math.inf
    for _ in range(200):
        near, far = upper_quantile(eps - small), upper_quantile(small)
        if step <= tolerance * small:
            break
        missing = density(near) - density(far) - gradient
        if missing > 0.0:
            lo = small
        else:
            hi = small
        new = small + missing / (near + far)
        if not lo < new < hi:
            new = 0.5 * (lo + hi) if lo > 0.0 else 0.01 * hi
        step = abs(new - small)
        if step <= 2e-16 * small:
            break
        small = new
    return (near, -far) if m1 <= 0.0 else (far, -near)


@jit
def slab_radius(eps: float, m1: float, z: float) -> float:
    """A lower bound, tight to some 1e-12, of the radius at m2 = 0; |m1| < phi(z)."""
    w1, w2 = slab_edges(eps, m1, z, 1e-6)
    lo, hi = max(0.0, 0.5 * (w1 + w2)), w1
    r = w1
    slope = 0.0
    for _ in range(100):
        missing = 0.5 - upper(w1 - r) - upper(r - w2)
        if missing >= 0.0:
            lo = r
        else:
            hi = r
        slope = density(w1 - r) - density(w2 - r)
        new = r + missing / slope
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi)
        step = abs(new - r)
        r = new
        if step <= 1e-7 * r:
            break
    l1 = math.exp(r * w1 - 0.5 * r * r)
    a1 = (l1 - math.exp(r * w2 - 0.5 * r * r)) / (w1 - w2)
    a0 = l1 - a1 * w1
    mass = upper(w1) + upper(-w2)
    pull = density(w1) - density(w2)
    s = 0.5 - upper(w1 - r) - upper(r - w2) - a0 * (eps - mass) + a1 * (m1 + pull)
    s -= ROUNDING * (1.0 + a0 * (eps + mass) + a1 * (abs(m1) + density(w1) + density(w2)))
    return (r + min(0.0, 2.0 * s / slope)) * DOWN
