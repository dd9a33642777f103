"""One node: the radius by a root search over the maximised dual, with its multipliers and a status."""

import enum
import math
from typing import NamedTuple

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper
from certlut.kernels.slab import slab_edges

from .dual import maximise, newton_step
from .moments import NO_MOMENTS
from .small import SMALL, outside, remainder, remainder_slope

# Relative accuracy that a converged radius has by its own a-posteriori estimate.
TOLERANCE = 1e-9
# Below this m2 / phi(z) the slab (m2 = 0) is exact to far better than TOLERANCE: the radius is quadratic in m2 there.
SLAB = 1e-9
# Below this z the radius is first looked for among the small ones.
TINY = 1e-5


class Status(enum.IntEnum):
    """How a node was solved; stored with it.

    Examples:
        >>> from certlut.tablegen import Status, solve
        >>> solve(0.9, -0.1, 0.0).status is Status.SLAB  # m2 = 0
        True
    """

    FAILED = 0
    SLAB = 1
    BOTH_ACTIVE = 2
    M1_SLACK = 3
    HALF_SPACE = 4


class Root(NamedTuple):
    """Where the maximised dual is 1/2."""

    r: float
    slope: float
    """-d(maximum)/dr."""
    error: float
    """Estimated relative error of r."""
    status: int
    steps: int
    """Newton steps of all maximisations."""


@jit
def active(a: Array) -> int:
    """The status of an optimum with m2 > 0."""
    return Status.BOTH_ACTIVE.value if a[1] > 0.0 else Status.M1_SLACK.value


@jit
def _slab_radius(w1: float, w2: float) -> float:
    """The larger r with Phi(w1 - r) - Phi(w2 - r) = 1/2 (Corollary 3.1)."""
    lo, hi = max(0.5 * (w1 + w2), 0.0), w1
    r = w1
    for _ in range(200):
        f = upper(r - w1) - upper(r - w2) - 0.5
        if f > 0.0:
            lo = r
        else:
            hi = r
        new = r + f / (density(w1 - r) - density(w2 - r))
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi)
        if abs(new - r) <= 2e-16 * r:
            break
        r = new
    return r


@jit
def slab_multipliers(w1: float, w2: float, r: float, m2: float, a: Array) -> None:
    """The slab's exact a0, a1 and the a2 that a small m2 would give it: the start for every other node."""
    l1 = math.exp(r * w1 - 0.5 * r * r)
    l2 = math.exp(r * w2 - 0.5 * r * r)
    a[1] = (l1 - l2) / (w1 - w2)
    a[0] = l1 - a[1] * w1
    a[2] = m2 / (density(w1) / abs(a[1] - r * l1) + density(w2) / abs(a[1] - r * l2))


@jit
def _next(r: float, value: float, slope: float, lo: float, hi: float) -> float:
    """The next radius of a root search that starts from below, where the value may still rise: by Newton, inside (lo, hi]."""
    new = r + value / slope if slope > 0.0 else 2.0 * r
    new = min(max(new, 0.5 * r), 2.0 * r)
    return new if lo < new <= hi else 0.5 * (lo + hi)


@jit
def _small_slab(eps: float, m1: float, w1: float, w2: float, a: Array) -> Root:
    """`solve_node` for the slab [w2, w1] where its radius is small."""
    r, lo, hi = min(_slab_radius(w1, w2), SMALL), 0.0, SMALL
    for _ in range(100):
        m = outside(w1, w2, r)
        value = (0.5 - eps) + r * m1 - r * r * m.hl
        slope = m.hl_shift
        noise = 1e-15 * (0.5 - eps + r * abs(m1) + r * r)
        if abs(value) <= max(1e-13 * r * slope, noise):
            slab_multipliers(w1, w2, r, 0.0, a)
            return Root(r + value / slope, slope, noise / (slope * r), Status.SLAB.value, 0)
        if value > 0.0:
            lo = r
        else:
            hi = r
        if lo == SMALL:
            break
        r = _next(r, value, slope, lo, hi)
    return Root(r, math.nan, math.inf, Status.FAILED.value, 0)


@jit
def _small_node(eps: float, m1: float, m2: float, z: float, w1: float, w2: float, a: Array) -> Root:
    """`solve_node` for a small radius, with the multipliers of small.py; from the slab [w2, w1]."""
    r, lo, hi = min(_slab_radius(w1, w2), SMALL), 0.0, SMALL
    steps = 0
    b = np.empty(3)
    b[1] = (remainder(w1, r) - remainder(w2, r)) / (w1 - w2)
    b[0] = remainder(w1, r) - b[1] * w1
    b[2] = m2 / (density(w1) / abs(b[1] - remainder_slope(w1, r)) + density(w2) / abs(b[1] - remainder_slope(w2, r)))
    for _ in range(100):
        b[1] = max(b[1], -1.0 / r)
        found = maximise(eps, m1, m2, z, r, b, True)
        steps += found.steps
        if not found.gap < 1e-9:
            break
        square = r * r
        slope = found.moments.hl_shift
        value = (0.5 - eps) + r * m1 + square * (found.surplus - 0.5 + found.gap)
        noise = 1e-15 * (0.5 - eps + r * abs(m1) + square * (1.0 + abs(b[0]) + abs(b[1]) + b[2]))
        if abs(value) <= max(1e-13 * r * slope, noise):
            a[0], a[1], a[2] = 1.0 + square * b[0], max(0.0, r + square * b[1]), square * b[2]
            return Root(r + value / slope, slope, (square * found.gap + noise) / (slope * r), active(a), steps)
        if value > 0.0:
            lo = r
        else:
            hi = r
        if lo == SMALL:
            break
        r = _next(r, value, slope, lo, hi)
    return Root(r, math.nan, math.inf, Status.FAILED.value, steps)


@jit
def _small(eps: float, m1: float, m2: float, z: float, w1: float, w2: float, a: Array) -> Root:
    if m2 <= SLAB * density(z):
        return _small_slab(eps, m1, w1, w2, a)
    return _small_node(eps, m1, m2, z, w1, w2, a)


@jit
def _search(eps: float, m1: float, m2: float, z: float, w1: float, w2: float, a: Array) -> Root:
    """`solve_node` by a root search in r over the maximised dual.

    It starts at the radius of the slab [w2, w1], a lower bound; every maximisation starts from the last good one, carried along
    the curve of optima.
    """
    r = _slab_radius(w1, w2)
    if m2 <= SLAB * density(z):
        slab_multipliers(w1, w2, r, 0.0, a)
        slope = density(w1 - r) - density(w2 - r)
        # The gradient fixes the split of the tails to a few roundings of phi(z); next to the rim that moves the far edge.
        mass = 2e-15 * (density(z) / (w1 - w2) + eps)
        edges = density(w1 - r) * mass / density(w1) + density(w2 - r) * mass / density(w2)
        return Root(r, slope, (1e-15 + edges) / (slope * r), Status.SLAB.value, 0)
    slab_multipliers(w1, w2, r, m2, a)
    trial = np.empty(3)
    step = np.empty(3)
    good = r
    moments = NO_MOMENTS
    lo, hi = r, math.inf
    steps = 0
    for _ in range(80):
        trial[:] = a
        shift = (r - good) / a[2]
        # At the last optimum d(gradient)/dr = (k0, k1, -kc) / a2.
        if r != good and newton_step(moments, a, shift * moments.k, shift * moments.kt, -shift * moments.kc, a[1] > 0.0, step):
            scale = 1.0
            for i in range(3):
                if step[i] < 0.0 and a[i] > 0.0:
                    scale = min(scale, -0.8 * a[i] / step[i])
            trial += scale * step
        found = maximise(eps, m1, m2, z, r, trial, False)
        steps += found.steps
        if not found.gap < 1e-8:
            # Too far from the last good point: come half the way back.
            if abs(r - good) < 1e-3 * r:
                break
            r = 0.5 * (good + r)
            continue
        a[:] = trial
        moments = found.moments
        good = r
        value = found.surplus + found.gap
        if value >= 0.0:
            lo = max(lo, r)
        else:
            hi = min(hi, r)
        slope = moments.hl_shift  # -d(value)/dr
        noise = 1e-15 * (1.0 + a[0] * (moments.h + eps) + a[1] * (abs(moments.h_u1) + abs(m1)) + a[2] * m2)
        new = r + value / slope
        if abs(new - r) <= max(1e-13 * r, noise / slope):
            return Root(new, slope, (found.gap + noise) / (slope * r), active(a), steps)
        furthest = r + 0.5 * max(r, 1.0)
        new = min(new, furthest)
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi) if hi < math.inf else furthest
        r = new
    return Root(r, math.nan, math.inf, Status.FAILED.value, steps)


@jit
def solve_node(eps: float, m1: float, m2: float, z: float, a: Array) -> Root:
    """The root at one node, 0 < eps < 1/2, m2 >= 0, hypot(m1, m2) < phi(z), z = Phi^-1(1 - eps); fills `a`, its multipliers."""
    w1, w2 = slab_edges(eps, m1, z, 0.0)
    # Next to q = 1/2 a radius may be so small that too few digits of the multipliers tell it, or none.
    if z < TINY:
        root = _small(eps, m1, m2, z, w1, w2, a)
        if root.error <= TOLERANCE:
            return root
    root = _search(eps, m1, m2, z, w1, w2, a)
    return root if root.error <= TOLERANCE or not root.r < SMALL else _small(eps, m1, m2, z, w1, w2, a)
