"""The concave dual at a fixed radius: its value, Newton's step, and the maximum by safeguarded Newton.

Notation as in moments.py. With `eps = 1 - q` the dual value is `1 - a0 eps + a1 m1 + a2 m2 - E(L - a.(1, u))_+`; nothing in it
cancels as q -> 1. A kernel's `a` is a float64 array of three, changed in place.
"""

import math
from typing import NamedTuple

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit

from .moments import Moments, compute_moments
from .small import small_moments

STALLED = math.inf


class Maximum(NamedTuple):
    """Where a maximisation ended."""

    surplus: float
    gap: float
    """Estimated distance to the true maximum, half the squared Newton decrement; inf where the iteration stalled."""
    steps: int
    moments: Moments


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
def _moments(a: Array, r: float, z: float, small: bool) -> Moments:
    return small_moments(a, r) if small else compute_moments(a, r, z)


@jit
def maximise(eps: float, m1: float, m2: float, z: float, r: float, a: Array, small: bool) -> Maximum:
    """Maximise the dual over a0, a2 > 0, a1 >= 0 at radius r, from `a`, which is left at the best point found.

    The multiplier a1 sits at its bound 0 where the constraint on m1 is slack. With `small`, `a` and the surplus are those of
    small.py, scaled.
    """
    low0, low1 = (-1.0 / (r * r), -1.0 / r) if small else (0.0, 0.0)
    trial = np.empty(3)
    step = np.empty(3)
    m = _moments(a, r, z, small)
    value = surplus(eps, m1, m2, a, m)
    previous = math.inf
    for iteration in range(100):
        g0 = m.h - eps
        g1 = m.h_u1 + m1
        g2 = m.h_u2 + m2
        free = a[1] > low1 or g1 > 0.0
        if not newton_step(m, a, g0, g1, g2, free, step):
            return Maximum(value, STALLED, iteration, m)
        if a[1] == low1 and step[1] < 0.0:
            newton_step(m, a, g0, g1, g2, False, step)
        gap = 0.5 * (g0 * step[0] + g1 * step[1] + g2 * step[2])
        # Done, or down at the noise of the moments, where Newton no longer converges quadratically.
        if gap < 1e-13 or (previous < 1e-9 and gap > 0.1 * previous):
            return Maximum(value, gap, iteration, m)
        previous = gap
        # Stay inside: shrink a0 and a2 by at most five, let a1 reach its bound.
        scale = 1.0
        if step[0] < 0.0:
            scale = min(scale, -0.8 * (a[0] - low0) / step[0])
        if step[2] < 0.0:
            scale = min(scale, -0.8 * a[2] / step[2])
        to_bound = -(a[1] - low1) / step[1] if step[1] < 0.0 else math.inf
        scale = min(scale, to_bound)
        for _ in range(40):
            trial[:] = a + scale * step
            if scale == to_bound or trial[1] < low1:
                trial[1] = low1
            trial_m = _moments(trial, r, z, small)
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
