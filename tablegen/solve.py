"""One node: the exact radius r(q, m1, m2) with its multipliers and a status. Pure functions, no files, no tables."""

import enum
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import density, upper, upper_quantile
from certlut.kernels.slab import slab_edges

from .dual import NO_MOMENTS, maximise, newton_step

# Relative accuracy that a converged radius has by its own a-posteriori estimate.
TOLERANCE = 1e-9
# Below this m2 / phi(z) the slab (m2 = 0) is exact to far better than TOLERANCE: the radius is quadratic in m2 there.
SLAB = 1e-9


class Status(enum.IntEnum):
    """How a node was solved; stored with it."""

    FAILED = 0
    SLAB = 1
    BOTH_ACTIVE = 2
    M1_SLACK = 3
    HALF_SPACE = 4


@dataclass(frozen=True)
class Solution:
    """An exact radius (sigma = 1) with the multipliers (a0, a1, a2) of its cut."""

    radius: float
    multipliers: tuple[float, float, float]
    status: Status
    error: float
    """Estimated relative error of `radius`."""
    iterations: int

    @property
    def converged(self) -> bool:
        """Whether `radius` may be used."""
        return self.status != Status.FAILED


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
def _slab_multipliers(w1: float, w2: float, r: float, m2: float, a: Array) -> None:
    """The slab's exact a0, a1 and the a2 that a small m2 would give it: the start for every other node."""
    l1 = math.exp(r * w1 - 0.5 * r * r)
    l2 = math.exp(r * w2 - 0.5 * r * r)
    a[1] = (l1 - l2) / (w1 - w2)
    a[0] = l1 - a[1] * w1
    a[2] = m2 / (density(w1) / abs(a[1] - r * l1) + density(w2) / abs(a[1] - r * l2))


@jit
def solve_node(eps: float, m1: float, m2: float, z: float, a: Array) -> tuple[float, float, float, int, int]:
    """Root search in r over the maximised dual: (r, slope, relative error estimate, status, Newton steps); fills `a`.

    `slope` is -d(maximum)/dr. 0 < eps < 1/2, m2 >= 0, hypot(m1, m2) < phi(z), z = Phi^-1(1 - eps). The search starts at the
    slab's radius, a lower bound; every maximisation starts from the last good one, carried along the curve of optima.
    """
    w1, w2 = slab_edges(eps, m1, z, 0.0)
    r = _slab_radius(w1, w2)
    if m2 <= SLAB * density(z):
        _slab_multipliers(w1, w2, r, 0.0, a)
        slope = density(w1 - r) - density(w2 - r)
        # The gradient fixes the split of the tails to a few roundings of phi(z); next to the rim that moves the far edge.
        mass = 2e-15 * (density(z) / (w1 - w2) + eps)
        edges = density(w1 - r) * mass / density(w1) + density(w2 - r) * mass / density(w2)
        return r, slope, (1e-15 + edges) / (slope * r), Status.SLAB.value, 0
    _slab_multipliers(w1, w2, r, m2, a)
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
        found = maximise(eps, m1, m2, z, r, trial)
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
            return new, slope, (found.gap + noise) / (slope * r), active(a), steps
        furthest = r + 0.5 * max(r, 1.0)
        new = min(new, furthest)
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi) if hi < math.inf else furthest
        r = new
    return r, math.nan, math.inf, Status.FAILED.value, steps


def _check(q: float, m1: float, m2: float) -> tuple[float, float]:
    """(1 - q, Phi^-1(q)) of a valid node; ValueError that says which input is outside the domain, and why."""
    for name, x in (("q", q), ("m1", m1), ("m2", m2)):
        if not math.isfinite(x):
            raise ValueError(f"{name} = {x}: expected a finite number")
    if not 0.5 < q < 1.0:
        raise ValueError(f"q = {q!r}: expected 1/2 < q < 1 (at 1/2 or below there is no majority to certify)")
    if m2 < 0.0:
        raise ValueError(f"m2 = {m2!r}: expected m2 >= 0, it is a norm")
    eps = 1.0 - q
    z = upper_quantile(eps)
    length, rim = math.hypot(m1, m2), density(z)
    # Up to a few roundings of phi(z) the half-space itself is a valid node.
    if length >= rim and not (m2 <= SLAB * rim and 0.0 < -m1 <= rim * (1.0 + 1e-14)):
        raise ValueError(
            f"(m1, m2) = ({m1!r}, {m2!r}) has length {length:.17g}: no classifier with q = {q!r} has a gradient of length "
            f"phi(Phi^-1(q)) = {rim:.17g} or more"
        )
    return eps, z


def solve(q: float, m1: float, m2: float) -> Solution:
    """The exact first-order radius (docs/theory.md, sections 1 to 3) at one point, in units of sigma.

    Args:
        q: lower bound of the class's smoothed probability, 1/2 < q < 1.
        m1: lower bound of the gradient `sigma * grad g` along the direction of the perturbation (negative: away).
        m2: lower bound of its length across that direction, >= 0; `hypot(m1, m2) < phi(Phi^-1(q))`.

    Returns:
        A Solution whose status says how it was reached; FAILED where the search did not converge (its radius is then NaN).

    Raises:
        ValueError: an input outside the domain, named.
    """
    q, m1, m2 = float(q), float(m1), float(m2)
    eps, z = _check(q, m1, m2)
    if math.hypot(m1, m2) >= density(z):
        return Solution(z, (math.exp(0.5 * z * z), 0.0, 0.0), Status.HALF_SPACE, 1e-15, 0)
    a = np.empty(3)
    radius, _, error, status, steps = solve_node(eps, m1, m2, z, a)
    if not error <= TOLERANCE:
        return Solution(math.nan, (math.nan, math.nan, math.nan), Status.FAILED, math.inf, steps)
    return Solution(radius, (float(a[0]), float(a[1]), float(a[2])), Status(status), error, steps)


def radius(q: npt.ArrayLike, m1: npt.ArrayLike, m2: npt.ArrayLike) -> float | npt.NDArray[np.float64]:
    """The exact first-order radius r(q, m1, m2), sigma = 1, to 1e-9 relative; arguments broadcast, scalars give a float.

    Raises:
        ValueError: an input outside the domain (see `solve`).
        ArithmeticError: a point at which the solver did not converge; never a silent wrong number.
    """
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (q, m1, m2)))
    out = np.empty(arrays[0].shape)
    for index in np.ndindex(out.shape):
        node = [float(x[index]) for x in arrays]
        solution = solve(*node)
        if not solution.converged:
            raise ArithmeticError(f"no convergence at q = {node[0]!r}, m1 = {node[1]!r}, m2 = {node[2]!r}")
        out[index] = solution.radius
    return float(out[()]) if out.ndim == 0 else out
