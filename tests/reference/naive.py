"""Slow, obvious references for the tests: mpmath, adaptive quadrature, a linear program. None of them calls the package."""

import itertools
import math
from collections.abc import Callable

import mpmath
import numpy as np
import numpy.typing as npt
from numpy.polynomial.hermite_e import hermeval
from scipy.integrate import quad_vec
from scipy.optimize import brentq, linprog, root
from scipy.special import ndtr, ndtri

Array = npt.NDArray[np.float64]

# ---------------------------------------------------------------------------------------------------------------------------------
# The normal distribution
# ---------------------------------------------------------------------------------------------------------------------------------

MP = mpmath.mp.clone()
MP.dps = 50


def mp_density(x: float | mpmath.mpf) -> mpmath.mpf:
    return MP.npdf(MP.mpf(x))


def mp_upper(x: float | mpmath.mpf) -> mpmath.mpf:
    """P(u > x)."""
    return MP.erfc(MP.mpf(x) / MP.sqrt(2)) / 2


def mp_upper_quantile(p: float | mpmath.mpf) -> mpmath.mpf:
    """The x with P(u > x) = p, 0 < p <= 1/2: Newton on log p from SciPy's value."""
    p = MP.mpf(p)
    if 2 * p == 1:
        return MP.mpf(0)
    x = MP.mpf(-float(ndtri(float(p))))
    for _ in range(20):
        step = (MP.log(mp_upper(x)) - MP.log(p)) * mp_upper(x) / mp_density(x)
        x += step
        if abs(step) < MP.mpf(10) ** -45 * abs(x):
            break
    return x


def density(x: npt.ArrayLike) -> Array:
    x = np.asarray(x, dtype=np.float64)
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


# ---------------------------------------------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------------------------------------------


def points(z: npt.ArrayLike, rho: npt.ArrayLike, theta: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """(q, m1, m2) at Phi^-1(q) = z, |m| = rho phi(z), theta the angle of (-m1, m2) in degrees; 90 and 180 are exact."""
    z, rho, theta = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (z, rho, theta)))
    q = 1.0 - ndtr(-z)
    rim = density(-ndtri(1.0 - q))
    cosine = np.where(theta == 90.0, 0.0, np.cos(np.radians(theta)))
    sine = np.where(theta == 180.0, 0.0, np.sin(np.radians(theta)))
    return q, -rho * rim * cosine + 0.0, rho * rim * sine


def point(z: float, rho: float, theta: float) -> tuple[float, float, float]:
    q, m1, m2 = points(z, rho, theta)
    return float(q), float(m1), float(m2)


# ---------------------------------------------------------------------------------------------------------------------------------
# The cut with multipliers a at radius r: L(t) = exp(r t - r^2 / 2), h = 1{L(u1) > a0 + a1 u1 + a2 u2}
# ---------------------------------------------------------------------------------------------------------------------------------


def crossings(a: npt.ArrayLike, r: float, level: float) -> list[float]:
    """The solutions t of L(t) - a0 - a1 t = level, at most two since the left-hand side is convex."""
    a0, a1 = float(np.asarray(a)[0]), float(np.asarray(a)[1])

    def f(t: float) -> float:
        return math.exp(r * t - 0.5 * r * r) - a0 - a1 * t - level

    if a1 <= 0.0:
        return [(math.log(a0 + level) + 0.5 * r * r) / r] if a0 + level > 0.0 else []
    bottom = (math.log(a1 / r) + 0.5 * r * r) / r
    if f(bottom) >= 0.0:
        return []
    left, right = bottom - 1.0, bottom + 1.0
    while f(left) <= 0.0:
        left -= bottom - left
    while f(right) <= 0.0:
        right += min(right - bottom, 1.0)
    tight = {"xtol": 1e-15, "rtol": 1e-15, "maxiter": 300}
    return [brentq(f, left, bottom, **tight), brentq(f, bottom, right, **tight)]


def _breaks(a: npt.ArrayLike, r: float, reach: float) -> Array:
    a2 = float(np.asarray(a)[2])
    low, high = -reach, max(reach, r + 9.0)
    levels = [0.0] if a2 == 0.0 else [s * a2 for s in (-16.0, -9.0, -6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 9.0, 16.0)]
    steep = [t for level in levels for t in crossings(a, r, level) if low < t < high]
    return np.unique(np.concatenate([np.arange(low, high, 1.0), [high], steep]))


def cut_moments(a: npt.ArrayLike, r: float, z: float) -> tuple[Array, Array]:
    """The fourteen integrals of `certlut.tablegen.dual` for a2 > 0, by adaptive quadrature; and the same of their absolutes."""
    a0, a1, a2 = (float(x) for x in np.asarray(a))

    def integrands(t: float) -> Array:
        likelihood = math.exp(r * t - 0.5 * r * r)
        c = (a0 + a1 * t - likelihood) / a2
        phi = float(density(t))
        h = phi * float(ndtr(-c))
        w = phi * float(density(c))
        k = w * likelihood * (t - r)
        values = [h, h * t, -w, h * likelihood, h * likelihood * (t - r)]
        values += [w, w * t, w * c, w * t * t, w * t * c, w * c * c, k, k * t, k * c]
        return np.array(values + [abs(x) for x in values])

    total = np.zeros(28)
    breaks = _breaks(a, r, math.sqrt(z * z + 80.0))
    for left, right in itertools.pairwise(breaks):
        # The pieces are smooth; where c is steep its rounding is noise that no subdivision removes.
        total += quad_vec(integrands, left, right, epsabs=1e-17 * float(density(z)), epsrel=1e-13, limit=8)[0]
    return total[:14], total[14:]


def hinge(a: npt.ArrayLike, r: float, panels: int = 1000) -> float:
    """E(L - a.(1, u))_+, by Gauss-Legendre on many small panels; absolute error about 1e-9 where the cut is not very steep."""
    a0, a1, a2 = (float(x) for x in np.asarray(a))
    knots = np.linspace(-12.0, r + 12.0, panels + 1)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = 0.5 * (knots[1] - knots[0])
    t = (knots[:-1, None] + half * (nodes + 1.0)).ravel()
    y = np.exp(r * t - 0.5 * r * r) - a0 - a1 * t
    if a2 > 0.0:
        s = y / a2
        y = a2 * (s * ndtr(s) + density(s))
    return float(np.tile(weights * half, panels) @ (np.maximum(y, 0.0) * density(t)))


def mp_hinge(a: npt.ArrayLike, r: float) -> mpmath.mpf:
    """E(L - a.(1, u))_+ to some 25 digits, the arguments taken at their exact binary values."""
    a0, a1, a2 = (MP.mpf(float(x)) for x in np.asarray(a))
    with MP.workdps(32):
        radius = MP.mpf(r)

        def integrand(t: mpmath.mpf) -> mpmath.mpf:
            y = MP.exp(radius * t - radius * radius / 2) - a0 - a1 * t
            if a2 == 0:
                return y * MP.npdf(t) if y > 0 else MP.mpf(0)
            s = y / a2
            return a2 * (s * MP.erfc(-s / MP.sqrt(2)) / 2 + MP.npdf(s)) * MP.npdf(t)

        breaks = [MP.mpf(float(t)) for t in _breaks(a, r, 13.0)]
        if a2 == 0:
            # The kinks to full precision: Newton from the double-precision roots.
            for t in crossings(a, r, 0.0):
                root = MP.mpf(t)
                for _ in range(3):
                    e = MP.exp(radius * root - radius * radius / 2)
                    root -= (e - a0 - a1 * root) / (radius * e - a1)
                breaks = sorted([b for b in breaks if abs(b - root) > 1e-9] + [root])
        return sum(MP.quad(integrand, [left, right], method="gauss-legendre") for left, right in itertools.pairwise(breaks))


# ---------------------------------------------------------------------------------------------------------------------------------
# m2 = 0: the slab (Corollary 3.1)
# ---------------------------------------------------------------------------------------------------------------------------------


def _newton(
    f: Callable[[mpmath.mpf], mpmath.mpf], slope: Callable[[mpmath.mpf], mpmath.mpf], low: float, high: float
) -> mpmath.mpf:
    """The root of an increasing f in [low, high]: bisection to a few digits, then Newton."""
    a, b = MP.mpf(low), MP.mpf(high)
    for _ in range(40):
        middle = (a + b) / 2
        a, b = (middle, b) if f(middle) < 0 else (a, middle)
    x = (a + b) / 2
    for _ in range(10):
        step = f(x) / slope(x)
        x -= step
        if abs(step) < MP.mpf(10) ** -42 * (1 + abs(x)):
            break
    return x


def mp_slab_radius(q: float, m1: float) -> mpmath.mpf:
    """r(q, m1, 0) for |m1| < phi(z): Phi(w1) - Phi(w2) = q, phi(w1) - phi(w2) = -m1, Phi(w1 - r) - Phi(w2 - r) = 1/2."""
    eps, pull = 1 - MP.mpf(q), abs(MP.mpf(m1))

    # In the far edge: the mass beyond it is the smaller one, P(u > far) = small, and the gradient grows with far.
    def near(far: mpmath.mpf) -> mpmath.mpf:
        return mp_upper_quantile(eps - mp_upper(far))

    middle = float(mp_upper_quantile(eps / 2))
    far = _newton(
        lambda x: mp_density(near(x)) - mp_density(x) - pull,
        lambda x: mp_density(x) * (near(x) + x),
        middle,
        middle + 40.0,
    )
    w1, w2 = (near(far), -far) if m1 <= 0 else (far, -near(far))
    return _newton(
        lambda r: mp_upper(w1 - r) + mp_upper(r - w2) - MP.mpf(1) / 2,
        lambda r: mp_density(w1 - r) - mp_density(r - w2),
        max(0.0, float(w1 + w2) / 2),
        float(w1),
    )


# ---------------------------------------------------------------------------------------------------------------------------------
# Small radii: L_r(t) = sum of r^k He_k(t) / k!, so that what is left of 1 + r t can be summed without cancellation
# ---------------------------------------------------------------------------------------------------------------------------------


def remainder(t: npt.ArrayLike, r: float) -> Array:
    """(L_r(t) - 1 - r t) / r^2 for |r t| of 1 or so."""
    return np.asarray(hermeval(t, [0.0, 0.0, *(r ** (k - 2) / math.factorial(k) for k in range(2, 40))]))


def small_radius(q: float, m1: float, m2: float, b: npt.ArrayLike, radius: float) -> float:
    """r(q, m1, m2) of a small radius, both constraints active: the optimum's four equations for the curve a.(1, u) = L_r with
    a = (1, r, 0) + r^2 b, from about the right b and radius."""

    def equations(x: Array) -> Array:
        b0, b1, b2, r = x[0], x[1], math.exp(x[2]), radius * x[3]

        def integrands(t: float) -> Array:
            rest = float(remainder(t, r))
            c = (b0 + b1 * t - rest) / b2
            h = float(density(t) * ndtr(-c))
            return np.array([h, h * t, float(density(t) * density(c)), h * rest])

        roots = [b1 * b1 + 1.0 + 2.0 * (b0 - level * b2) for level in (-9.0, -4.0, -1.0, 0.0, 1.0, 4.0, 9.0)]
        steep = [b1 + sign * math.sqrt(root) for root in roots if root > 0.0 for sign in (-1.0, 1.0)]
        breaks = np.unique(np.clip([*np.arange(-10.0, 11.0, 2.0), *steep], -10.0, 10.0))
        pieces = [quad_vec(integrands, *ends, epsabs=1e-16, epsrel=1e-13, limit=20)[0] for ends in itertools.pairwise(breaks)]
        h, h_u1, w, h_rest = np.sum(pieces, axis=0)
        half = (0.5 - (1.0 - q)) / r + m1 - r * h_rest
        return np.array([h - (1.0 - q), h_u1 + m1, w - m2, half])

    b0, b1, b2 = (float(x) for x in np.asarray(b))
    found = root(equations, [b0, b1, math.log(b2), 1.0], method="hybr", options={"xtol": 1e-14})
    assert np.abs(found.fun).max() < 1e-12, found
    return float(radius * found.x[3])


# ---------------------------------------------------------------------------------------------------------------------------------
# The primal: a linear program over cells of the plane (u1, u2)
# ---------------------------------------------------------------------------------------------------------------------------------


def _intervals(edges: Array) -> tuple[Array, Array]:
    """P(u in cell) and E[u; u in cell] for the cells between `edges` (last axis), without cancellation in the right tail."""
    left, right = edges[..., :-1], edges[..., 1:]
    mass = np.where(left > 0.0, ndtr(-left) - ndtr(-right), ndtr(right) - ndtr(left))
    return mass, density(left) - density(right)


def _cells(r: float, first: Array, second: Array) -> tuple[Array, Array]:
    """Per cell: (P, E u1, E u2) as three rows, and E L_r; `second` has the edges in u2 of each strip between `first` in u1."""
    p1, d1 = (x[:, None] for x in _intervals(first))
    p2, d2 = _intervals(second)
    shifted = _intervals(first - r)[0][:, None]
    return np.stack([p1 * p2, d1 * p2, p1 * d2]).reshape(3, -1), (shifted * p2).ravel()


def _uniform(r: float, z: float) -> tuple[Array, Array]:
    first = np.concatenate([[-np.inf], np.linspace(-z - 4.0, max(z, r) + 4.5, 60), [np.inf]])
    second = np.concatenate([[-np.inf], np.linspace(-z - 3.5, z + 3.5, 36), [np.inf]])
    return first, np.tile(second, (len(first) - 1, 1))


def _around(first: Array, strips: int, a: Array, r: float, z: float) -> tuple[Array, Array]:
    """Cells that are small along the curve a.(1, u) = L_r, in the strips `first` and in more where the curve is steep."""
    a = np.maximum(a, [1e-3, 0.0, 1e-6 * a[0]])
    low, high = first[1], first[-2]
    steep = [t for s in np.linspace(-z - 3.0, z + 3.0, 61) for t in crossings(a, r, s * a[2]) if low < t < high]
    first = np.unique(np.concatenate([first, np.linspace(low, high, strips), steep]))
    middle = np.clip(0.5 * (first[:-1] + first[1:]), low, high)
    curve = np.clip((np.exp(r * middle - 0.5 * r * r) - a[0] - a[1] * middle) / a[2], -z - 5.0, z + 5.0)
    offsets = 0.025 * 1.5 ** np.arange(15)
    return first, curve[:, None] + np.concatenate([[-np.inf], -offsets[::-1], offsets, [np.inf]])


def _maximise(rows: Array, gain: Array, bound: Array, rim: float) -> tuple[float, Array]:
    """Max of sum h gain over 0 <= h <= 1 with rows @ h <= bound: (value, multipliers); value -1 where there is no such h."""
    # In the unknowns h * weight every coefficient is of order 1, whatever the cell's mass.
    weight = rows[0] / rim + gain
    used = weight > 1e-11
    rows, gain, weight = rows[:, used], gain[used], weight[used]
    scale = 1e5
    result = linprog(
        -gain / weight,
        A_ub=rows / rim / weight,
        b_ub=scale * bound / rim,
        bounds=np.stack([np.zeros_like(weight), scale * weight], axis=1),
        method="highs-ds",
        options={"presolve": False},
    )
    if result.status != 0:
        return -1.0, np.zeros(3)
    return -result.fun / scale, np.maximum(0.0, -result.ineqlin.marginals / rim)


def dual_value(q: float, m1: float, m2: float, r: float, a: npt.ArrayLike) -> float:
    """The weak-duality lower bound of p*(q, m1, m2; r) for multipliers a >= 0."""
    a0, a1, a2 = (float(x) for x in np.asarray(a))
    return 1.0 - a0 * (1.0 - q) + a1 * m1 + a2 * m2 - hinge(a, r)


def brackets_radius(q: float, m1: float, m2: float, low: float, high: float) -> tuple[bool, bool]:
    """(r(q, m1, m2) >= low, r(q, m1, m2) <= high), as far as they can be proven; both proofs are rigorous up to rounding.

    Above: a classifier, constant on cells, that has lost its majority at `high`. Below: the cut with the program's multipliers
    still holds at `low`. Uniform cells first, then cells that follow the boundary found so far.
    """
    eps = 1.0 - q
    z = -float(ndtri(eps))
    rim = float(density(z))
    holds = lost = False
    mesh = _uniform(high, z)
    for strips in (130, 130, 130, 400, 400, 400):
        value, a = _maximise(*_cells(high, *mesh), np.array([eps, -m1, -m2]), rim)
        lost = lost or 1.0 - value < 0.5
        holds = holds or dual_value(q, m1, m2, low, a) > 0.5
        if holds and lost:
            break
        mesh = _around(mesh[0], strips, a, high, z)
    return holds, lost
