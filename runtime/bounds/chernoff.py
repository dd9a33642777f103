"""tau(n, L; b, eps): how far the mean of n copies of v.Z strays from v.y, Z = u (f - b), where votes against are known to be rare.

f is 0 or 1 (a vote), b in [1/2, 1] is fixed before the samples, P(f = 0) <= eps, v is a unit vector, y = E[u f] = E Z. Let
t = v.u and g(t) = P(f = 0 | t): then 0 <= g <= 1, E g <= eps, v.y = -E[t g], and with log x <= x - 1

    log E exp(lam v.(Z - y)) <= E exp(lam v.Z) - 1 - lam v.y = exp(lam^2 (1 - b)^2 / 2) - 1 + E[g H],
    H(t) = exp(-lam b t) - exp(lam (1 - b) t) + lam t, and E[g H] <= h eps + E(H - h)+ for every h >= 0,

so (Chernoff) P(v.(Zbar - y) > tau) <= exp(-L) for

    tau = (C + h eps + x) / lam, x = L / n, C = exp(lam^2 (1 - b)^2 / 2) - 1 + E(H - h)+.

Every lam > 0 and h >= 0 gives a valid tau, affine in (eps, x): choosing them badly costs width and never soundness, and a pair
chosen for one (eps, x) serves its neighbours with an error of second order. `tau` takes a good pair of the nearest grid point.

The best such tau, tau*(eps), does not fall as eps grows (h >= 0). So eps may be an upper confidence bound from the same samples:
where it holds, the tau returned >= tau*(eps) >= tau*(the true P(f = 0)), a number that does not depend on the samples.

Rounding. H(t) = G(lam t), G(s) = exp(-b s) - exp((1 - b) s) + s. G is 0 with slope 0 at s = 0, falls on s < 0, and on s > 0 rises
to one peak (at 0 if b = 1/2, at infinity if b = 1) and falls; G(-s) >= G(s) for s > 0. So {H > h} = (-inf, -left) and (u1, u2).
E(H - h)+ is summed between computed edges in closed form. That misses the integral of |H - h| between a computed and a true edge;
G is monotone there, so |H - h| is at most the residual at the computed edge. C is raised by these residuals and by a bound of
every rounding, together near 1e-14 where lam is small.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from ..kernels.arrays import Array
from ..kernels.jit import jit
from ..kernels.normal import density, upper, upper_quantile

# Grid points per unit of log(eps) and of log(x): the affine bound of the nearest one is within 1e-6 of the best, relatively.
GRID = 512
# P(f = 0) is taken to be at least this.
LEAST = 1e-12
# exp(lam^2 / 2) stays finite. Only x > 100 would gain from a larger lam.
LAM_MAX = 30.0
# In t: the edges end here. E[(H - h)+; t > 40] <= lam phi(40) < 1e-345.
FAR = 40.0
# Two roundings.
ULP = 2.0**-52


@jit
def _curve(s: float, b: float) -> float:
    """G(s)."""
    return math.expm1(-b * s) - math.expm1((1.0 - b) * s) + s


@jit
def _noise(s: float, b: float) -> float:
    """Bound of the rounding of G(s), s itself being rounded."""
    return 4.0 * ULP * (1.0 + abs(s)) * (abs(math.expm1(-b * s)) + abs(math.expm1((1.0 - b) * s)) + abs(s))


@jit
def _slope(s: float, b: float) -> float:
    """G'(s)."""
    return -b * math.expm1(-b * s) - (1.0 - b) * math.expm1((1.0 - b) * s)


@jit
def _root(b: float, order: int, level: float, below: float, above: float, s: float) -> float:
    """Where G (order 0) or G' (order 1) is `level`, between points where it is below and above: Newton from s, or halving."""
    for _ in range(100):
        if order == 0:
            gap, rate = _curve(s, b) - level, _slope(s, b)
        else:
            gap, rate = _slope(s, b) - level, b * b * math.exp(-b * s) - (1.0 - b) ** 2 * math.exp((1.0 - b) * s)
        # No more can be told apart from rounding.
        if abs(gap) <= 2.0 * ULP * (abs(s) + abs(level)):
            break
        if gap < 0.0:
            below = s
        else:
            above = s
        s -= gap / rate
        if not min(below, above) < s < max(below, above):
            s = 0.5 * (below + above)
    return s


@jit
def peak_of(b: float) -> float:
    """The s >= 0 where G is largest; at most FAR LAM_MAX."""
    far = FAR * LAM_MAX
    if b == 0.5:
        return 0.0
    if _slope(far, b) >= 0.0:
        return far
    # G' rises from 0 to here, then falls through 0.
    bend = 2.0 * math.log(b / (1.0 - b))
    return _root(b, 1, 0.0, far, bend, 2.0 * bend)


@jit
def _right(lam: float, left: float, b: float, peak: float) -> tuple[float, float]:
    """(u1, u2), the part of {H > H(-left)} on t > 0 and below FAR; FAR twice if it is empty."""
    h, far = _curve(-lam * left, b), lam * FAR
    top = min(peak, far)
    if _curve(top, b) <= h:
        return FAR, FAR
    # H(left) <= H(-left).
    u1 = _root(b, 0, h, lam * left, top, min(1.1 * lam * left, top)) / lam if left > 0.0 else 0.0
    # G(2 peak) < 0; were it not, the residual would show it.
    end = min(2.0 * peak, far)
    u2 = FAR if end == far and _curve(far, b) >= h else _root(b, 0, h, end, top, 0.5 * (top + end)) / lam
    return u1, u2


@jit
def _tail(edge: float, c: float) -> float:
    """E[exp(c t); t > edge]."""
    return math.exp(0.5 * c * c) * upper(edge - c)


class Constant(NamedTuple):
    """C at one h."""

    value: float
    error: float
    """|value - the exact C| is at most this."""
    h: float
    mass: float
    """P(H > h), to rounding."""
    rate: float
    """lam dC/dlam at fixed h, to rounding."""


class Affine(NamedTuple):
    """tau <= (constant + level eps' + x') / lam for every eps' and x'."""

    inverse: float
    """1/lam."""
    level: float
    """h."""
    constant: float
    """C, raised by its error."""


@jit
def constant_at(lam: float, left: float, b: float, peak: float) -> Constant:
    """C at h = H(-left)."""
    h = max(_curve(-lam * left, b), 0.0)
    u1, u2 = _right(lam, left, b, peak)
    down, up = lam * b, lam * (1.0 - b)
    square = math.expm1(0.5 * up * up)
    value, rate, mass = square, up * up * (1.0 + square), 0.0
    error, reach, top = 12.0 * ULP * (1.0 + up * up) * square, 1.0, min(peak, lam * FAR)
    # G at the true peak, less than 1 away from the computed one, is above by at most |G'|.
    above = abs(_slope(top, b)) if top == peak else 0.0
    error += above if u1 < FAR else max(_curve(top, b) + _noise(top, b) + above - h, 0.0)
    for side in range(3):
        # Tails: + left of -left, + right of u1, - right of u2. Mirrored, exp(c t) on t < -left is exp(-c t) on t > left.
        edge, sign, mirror = (left, 1.0, -1.0) if side == 0 else (u1, 1.0, 1.0) if side == 1 else (u2, -1.0, 1.0)
        s = mirror * lam * edge
        first, second, drift, part = _tail(edge, -mirror * down), _tail(edge, mirror * up), lam * density(edge), upper(edge)
        value += sign * (first - second + mirror * drift - h * part)
        rate += sign * (down * down * first - up * up * second + mirror * drift * _slope(s, b))
        mass += sign * part
        # upper(x) has relative condition x (x + 1), exp(c^2 / 2) has c^2; libm is good to a few roundings.
        error += 12.0 * ULP * (1.0 + edge + lam) ** 2 * (first + second + drift + h * part)
        if side < 2:
            # Where the true edge is sure to be beyond half the computed one; u2 is beyond u1.
            reach = upper(0.5 * edge) if _curve(0.5 * s, b) + _noise(0.5 * s, b) < h else 1.0
        if edge < FAR:
            # Between the edges |G - h| is at most the residual.
            error += reach * (abs(_curve(s, b) - h) + _noise(s, b))
    return Constant(value, error, h, mass, rate)


@jit
def _left(lam: float, b: float, eps: float, peak: float) -> float:
    """The left >= 0 with P(H > H(-left)) = eps to 1e-4 of eps; 0 if even P(H > 0) is less."""
    # The left tail holds from half to all of it, because H(-t) >= H(t).
    low, high = upper_quantile(eps) if eps < 0.5 else 0.0, upper_quantile(0.5 * eps)
    left, at_low, at_high, last = low, 0.0, 0.0, 0.0
    for i in range(60):
        u1, u2 = _right(lam, left, b, peak)
        surplus = math.log((upper(left) + upper(u1) - upper(u2)) / eps)
        if abs(surplus) < 1e-4 or (i == 0 and surplus <= 0.0):
            break
        # Regula falsi; the value at an end that stays again is halved (Illinois).
        again = 0.5 if surplus * last > 0.0 else 1.0
        last = surplus
        if surplus > 0.0:
            low, at_low, at_high = left, surplus, again * at_high
        else:
            high, at_high, at_low = left, surplus, again * at_low
        left = high if at_high == 0.0 else low + (high - low) * at_low / (at_low - at_high)
    return left


@jit
def affine_bound(x: float, b: float, eps: float) -> Affine:
    """Nearly the best affine bound at (eps, x)."""
    peak = peak_of(b)
    z = upper_quantile(0.5 * eps)
    variance = (1.0 - b) ** 2 + (2.0 * b - 1.0) * 2.0 * (upper(z) + z * density(z))
    # The best lam of a normal variable, and where votes at the threshold alone would make up x.
    lam = min(math.sqrt(2.0 * x / variance), (1.0 + math.log1p(x / eps)) / (b * max(z, 1.0)), LAM_MAX)
    low, high, at_low, at_high, last = 0.0, 0.0, 0.0, 0.0, 0.0
    least, best = math.inf, Affine(0.0, 0.0, 0.0)
    for _ in range(60):
        found = constant_at(lam, _left(lam, b, eps, peak), b, peak)
        tau = (found.value + found.error + found.h * eps + x) / lam
        if tau < least:
            least, best = tau, Affine(1.0 / lam, found.h, found.value + found.error)
        # Stationary where lam psi' - psi = x: it increases, psi being convex, and log-log nearly along 2 log lam.
        need = found.rate - found.value - found.h * eps
        gap = math.log(need / x) if need > 0.0 else -1.0
        if abs(gap) < 3e-4 or (gap < 0.0 and lam == LAM_MAX):
            break
        again = 0.5 if gap * last > 0.0 else 1.0
        last = gap
        if gap < 0.0:
            low, at_low, at_high = math.log(lam), gap, again * at_high
        else:
            high, at_high, at_low = math.log(lam), gap, again * at_low
        if at_low < 0.0 and at_high > 0.0:
            lam = math.exp(low + (high - low) * at_low / (at_low - at_high))
        else:
            lam = min(lam * math.exp(-min(max(0.5 * gap, -1.0), 1.0)), LAM_MAX)
    return best


@jit
def _affine_bounds(x: Array, eps: Array, b: float, out: Array) -> None:
    """Fill rows Affine of `out`, shape (len(x), 3)."""
    for i in range(len(x)):
        out[i, 0], out[i, 1], out[i, 2] = affine_bound(x[i], b, eps[i])


def tau(n: npt.ArrayLike, log_inverse: npt.ArrayLike, b: npt.ArrayLike, eps: npt.ArrayLike) -> Array:
    """P(v.(mean of n copies of u (f - b)) - v.y > tau) <= exp(-log_inverse) for every unit v and every vote f with P(f = 0) <= eps.

    Args:
        n: samples, at least 1.
        log_inverse: log(1 / a) > 0 for a bound that fails with probability a.
        b: in [1/2, 1], fixed before these samples are seen. Few distinct values: each takes a pass.
        eps: in [0, 1], an upper bound of P(f = 0); 1 (with b = 1/2) where none is known. One from these samples will do.

    Returns:
        tau in sigma = 1 units, the inputs' shape broadcast; at most about 1e-6 above the infimum over lam, relatively.

    Raises:
        ValueError: an argument out of range.
    """
    n, log_inverse, b, eps = (np.asarray(a, dtype=np.float64) for a in (n, log_inverse, b, eps))
    if not (np.isfinite(n).all() and (n >= 1.0).all()):
        raise ValueError(f"n from {np.min(n)} to {np.max(n)}: expected finite numbers of at least 1")
    if not (np.isfinite(log_inverse).all() and (log_inverse > 0.0).all()):
        raise ValueError(f"log_inverse from {np.min(log_inverse)} to {np.max(log_inverse)}: expected finite positive numbers")
    _check(eps, b)
    shape = np.broadcast_shapes(n.shape, log_inverse.shape, b.shape, eps.shape)
    x, b, eps = (np.broadcast_to(a, shape).ravel() for a in (log_inverse / n, b, np.maximum(eps, LEAST)))
    out = np.empty(x.shape)
    for value in np.unique(b):
        here = b == value
        out[here] = _tau(x[here], float(value), eps[here])
    return out.reshape(shape)


def _tau(x: Array, b: float, eps: Array) -> Array:
    """`tau` for one b, shapes (m,): every element by the affine bound of its nearest grid point, each computed once."""
    row, column = (np.rint(GRID * np.log(a)).astype(np.int64) for a in (x, eps))
    first, width = int(column.min()), int(np.ptp(column)) + 1
    keys, where = np.unique(row * width + (column - first), return_inverse=True)
    bounds = np.empty((len(keys), 3))
    _affine_bounds(np.exp(keys // width / GRID), np.minimum(np.exp((keys % width + first) / GRID), 1.0), b, bounds)
    inverse, level, constant = bounds[where].T
    # All terms are positive or rounded up: a few roundings.
    return np.asarray((constant + level * eps + x) * inverse * (1.0 + 8.0 * ULP))


def tail_square(eps: Array) -> Array:
    """T(eps) = E[t^2; |t| > z] with P(|t| > z) = eps, to rounding."""
    z = -ndtri(0.5 * np.maximum(eps, LEAST))
    return np.asarray(2.0 * (ndtr(-z) + z * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)))


def _check(eps: Array, b: Array) -> None:
    for name, a, low in (("eps", eps, 0.0), ("b", b, 0.5)):
        if not ((a >= low) & (a <= 1.0)).all():
            raise ValueError(f"{name} from {np.min(a)} to {np.max(a)}: expected numbers from {low} to 1")
