"""Slow references for the statistics: exact binomial tails, brute Chernoff bounds, classifiers whose gradient is known."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
import numpy.typing as npt
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import ndtr
from scipy.stats import chi2, ncx2

from certlut.bounds.chernoff import affine_bound
from certlut.statistics.summary import Moments
from certlut.threats.lines import Line, Ray
from certlut.threats.sets import ALL, Ball, Quantity, Threat, complement
from certlut.threats.sparse import Sparse

Array = npt.NDArray[np.float64]


def phi(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def exact_tail(n: int, count: int, p: float) -> Fraction:
    """P(Binomial(n, p) >= count) for the very double p, as a fraction."""
    numerator, scale = p.as_integer_ratio()
    weights = (math.comb(n, k) * numerator**k * (scale - numerator) ** (n - k) for k in range(count, n + 1))
    return Fraction(sum(weights), scale**n)


def long_tail(n: int, count: int, p: float) -> mpmath.mpf:
    """P(Binomial(n, p) >= count) to 30 digits, by summing the terms downwards from the tail's end that is the shorter one."""
    with mpmath.workdps(60):
        odds = mpmath.mpf(p) / (1 - mpmath.mpf(p))
        if n - count <= count:
            term, total = mpmath.mpf(p) ** n, mpmath.mpf(0)
            for k in range(n, count - 1, -1):
                total += term
                term *= mpmath.mpf(k) / (n - k + 1) / odds
            return total
        term, total = (1 - mpmath.mpf(p)) ** n, mpmath.mpf(0)
        for k in range(count):
            total += term
            term *= mpmath.mpf(n - k) / (k + 1) * odds
        return 1 - total


def product_exponent(d: int, log_inverse: float, x: float) -> float:
    """The t / sqrt(k1 k2) at which the Chernoff bound of eta1.eta2 with lam = x / sqrt(k1 k2) falls to exp(-log_inverse)."""
    return (log_inverse - 0.5 * d * math.log1p(-x * x)) / x


def best_product_exponent(d: int, log_inverse: float) -> float:
    """The least of product_exponent over 0 < x < 1, by ternary search (it has one minimum)."""
    low, high = 1e-12, 1.0 - 1e-12
    for _ in range(300):
        third = (high - low) / 3.0
        if product_exponent(d, log_inverse, low + third) < product_exponent(d, log_inverse, high - third):
            high -= third
        else:
            low += third
    return product_exponent(d, log_inverse, 0.5 * (low + high))


def log_mgf(edges: Sequence[float], first: float, lam: float) -> float:
    """log E exp(lam (t s - E t s)), t standard normal, s = +-1/2: `first` left of the first edge, changing sign at every edge.

    This is v.(Z - y) for a classifier that depends on v.u alone; a mixture of such is what any classifier gives.
    """
    cuts = np.array([-math.inf, *edges, math.inf])
    s = first * (-1.0) ** np.arange(len(cuts) - 1)
    mean = float(np.sum(s * np.diff(-np.exp(-0.5 * cuts**2) / math.sqrt(2.0 * math.pi))))
    mass = sum(math.exp(0.5 * (lam * a) ** 2) * float(np.diff(ndtr(cuts[i : i + 2] - lam * a))[0]) for i, a in enumerate(s))
    return math.log(mass) - lam * mean


def rare_gain(t: Array, lam: float, b: float) -> Array:
    """H(t): what a vote against at t = v.u adds to E exp(lam v.u (f - b)) - 1 - lam v.y."""
    return np.asarray(np.expm1(-lam * b * t) - np.expm1(lam * (1.0 - b) * t) + lam * t)


def rare_exponent(lam: float, b: float, eps: float) -> float:
    """exp(lam^2 (1 - b)^2 / 2) - 1 + sup{E[g H] : 0 <= g <= 1, E g <= eps}: a linear programme, filled from the largest H down."""
    step = 1e-4
    t = np.arange(-14.0, 10.0, step) + 0.5 * step
    t = t[ndtr(-np.abs(t)) <= 1.1 * eps]
    gain = rare_gain(t, lam, b)
    t, gain = t[gain > 0.0], gain[gain > 0.0]
    order = np.argsort(-gain)
    t, gain = t[order], gain[order]
    mass = step * np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
    spent = np.minimum(np.cumsum(mass), eps)
    return math.expm1(0.5 * (lam * (1.0 - b)) ** 2) + float(np.sum(gain * np.diff(spent, prepend=0.0)))


def rare_tau(x: float, b: float, eps: float) -> float:
    """inf over lam of (rare_exponent + x) / lam; it has one minimum."""
    result = minimize_scalar(
        lambda z: (rare_exponent(math.exp(z), b, eps) + x) / math.exp(z),
        bracket=(0.5 * math.log(x), 0.5 * math.log(x) + 0.7),
        method="brent",
        options={"xtol": 3e-5},
    )
    return float(result.fun)


def variance(eps: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Largest second moment of v.Z: (1 - b)^2 + (2 b - 1) E[t^2; |t| > z], P(|t| > z) = eps; tau^2 n / L tends to twice it."""
    eps, b = np.asarray(eps, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.asarray((1.0 - b) ** 2 + (2.0 * b - 1.0) * chi2.sf(chi2.isf(eps, 1), 3))


def best_b(eps: npt.ArrayLike) -> Array:
    """The b in [1/2, 1] of least `variance`."""
    return np.asarray(np.maximum(0.5, 1.0 - chi2.sf(chi2.isf(eps, 1), 3)))


def long_excess(lam: float, h: float, b: float) -> mpmath.mpf:
    """exp(lam^2 (1 - b)^2 / 2) - 1 + E(H - h)+ to 30 digits, by quadrature between the roots of H = h."""
    with mpmath.workdps(40):
        lam_, h_, b_ = mpmath.mpf(lam), mpmath.mpf(h), mpmath.mpf(b)

        def surplus(t: mpmath.mpf) -> mpmath.mpf:
            return mpmath.exp(-lam_ * b_ * t) - mpmath.exp(lam_ * (1 - b_) * t) + lam_ * t - h_

        grid = np.arange(-18.0 - lam, 18.0, 0.01) + 0.003
        sign = rare_gain(grid, lam, b) > h
        flips = np.flatnonzero(sign[1:] != sign[:-1])
        cuts = [grid[0]]
        for i in flips:
            low, high, rising = mpmath.mpf(grid[i]), mpmath.mpf(grid[i + 1]), bool(sign[i + 1])
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (low, middle) if (surplus(middle) > 0) == rising else (middle, high)
            cuts.append(low)
        cuts.append(grid[-1])
        total = mpmath.expm1((lam_ * (1 - b_)) ** 2 / 2)
        for low, high in itertools.pairwise(cuts):
            if surplus((low + high) / 2) > 0:
                pieces = mpmath.linspace(low, high, 2 + int((high - low) / 3))
                total += mpmath.quad(lambda t: surplus(t) * mpmath.npdf(t), pieces)
        return total


def paper_length(inner: float, d: int, n1: int, n2: int, k: float, alpha: float, sign: int) -> float:
    """Bound of |y|_2 from X.Y in the form of Table 1, errata corrected; sign 1 for the upper, -1 for the lower bound."""
    log_inverse = math.log(2.0 / alpha)
    square = inner + sign * best_product_exponent(d, log_inverse) * k / math.sqrt(n1 * n2)
    if square <= 0.0:
        return 0.0
    e = math.sqrt((k / n1 + k / n2) * log_inverse / (2.0 * square))
    return math.sqrt(square) / (math.sqrt(1.0 + e * e) - sign * e)


def paper_bound(quantity: Quantity, z1: Array, z2: Array, n1: int, n2: int, k: float, alpha: float) -> float:
    """Table 1's bound from the half means of Z on the quantity's part (for "dot" and "abs": along its direction)."""
    d = len(z1)
    pooled = (n1 * z1 + n2 * z2) / (n1 + n2)
    tau = [math.sqrt(2.0 * k * (log_union - math.log(alpha)) / (n1 + n2)) for log_union in (0.0, math.log(2 * d), d * math.log(2))]
    match quantity.norm:
        case "l2":
            inner = sum(a * b for a, b in zip(z1, z2, strict=True))
            return paper_length(inner, d, n1, n2, k, alpha, 1 if quantity.side == "upper" else -1)
        case "linf":
            return max(abs(a) for a in pooled) + tau[1]
        case "l1":
            return sum(abs(a) for a in pooled) + math.sqrt(d) * tau[2]
        case "dot":
            return float(pooled[0]) - tau[0]
        case "abs":
            return abs(float(pooled[0])) + tau[1]
    raise AssertionError(quantity)


@dataclass(frozen=True)
class Known:
    """A binary classifier on R^d in sigma = 1 units with known q = E f and y = E[u f], and a source of its samples."""

    name: str
    q: float
    y: Array
    draw: Callable[[np.random.Generator, int, int], tuple[npt.NDArray[np.int64], Array, Array]]
    """(rng, runs, n) -> (count, sum u f, sum u) of that many independent runs: (runs,), (runs, d), (runs, d)."""
    vote: Callable[[Array], npt.NDArray[np.bool_]] | None = None
    """Rows of u, shape (n, d) -> votes for, shape (n,)."""
    cuts: tuple[float, ...] | None = None
    """Of `stripes`: where the vote changes along w."""

    @property
    def d(self) -> int:
        return len(self.y)

    def truth(self, quantity: Quantity, threats: Sequence[Threat]) -> float:
        """The number that `quantity` bounds."""
        parts = {ALL: self.y}
        for threat in threats:
            if isinstance(threat, (Ray, Line)):
                v = threat.v.ravel()
                parts[threat.name], parts[complement(threat.name)] = np.array([v @ self.y]), self.y - v * (v @ self.y)
            elif isinstance(threat, Sparse):
                parts[threat.name] = self.y[np.argsort(-np.abs(self.y))[: threat.k]]
            elif threat.mask is not None:
                mask = threat.mask.ravel()
                parts[threat.name], parts[complement(threat.name)] = self.y[mask], self.y[~mask]
            elif threat.basis is not None:
                columns = threat.basis.reshape(len(threat.basis), -1).T
                inside = columns @ np.linalg.lstsq(columns, self.y)[0]
                parts[threat.name], parts[complement(threat.name)] = inside, self.y - inside
            else:
                parts[threat.name] = self.y
        part = parts[quantity.part]
        size = np.abs(part)
        norms = {"l1": size.sum(), "l2": np.sqrt(np.sum(size**2)), "linf": size.max(initial=0.0), "dot": part.sum()}
        norms |= {"sparse": norms["l2"], "abs": abs(part.sum())}
        if quantity.norm == "lp":
            p = next(threat.p for threat in threats if isinstance(threat, Ball) and threat.name == quantity.part)
            return float(np.sum(size ** (p / (p - 1.0))) ** ((p - 1.0) / p))
        return float(norms[quantity.norm])

    def moments(self, rng: np.random.Generator, runs: int, n: int) -> list[Moments]:
        """`runs` independent samplings of two halves, n // 2 and n - n // 2."""
        halves = (n // 2, n - n // 2)
        drawn = [self.draw(rng, runs, size) for size in halves]
        return [
            Moments(
                np.array(halves),
                np.array([count[i] for count, _, _ in drawn]),
                np.stack([sum_uf[i] for _, sum_uf, _ in drawn]),
                np.stack([sum_u[i] for _, _, sum_u in drawn]),
            )
            for i in range(runs)
        ]

    def exact_moments(self, n: int) -> Moments:
        """What an endless sampling tends to: both half means of Z equal to y, the share of votes equal to q up to rounding."""
        half = n // 2
        return Moments(
            np.array([half, half]),
            np.array([math.floor(self.q * half)] * 2),
            np.stack([self.y * half] * 2),
            np.zeros((2, self.d)),
        )


def stripes(w: Array, cuts: Sequence[float], name: str = "stripes") -> Known:
    """f = 1 where an odd number of the ascending cuts lies below w.u, w a unit vector.

    Only t = w.u has to be drawn sample by sample: across w the sums over the votes for and against are exactly normal.
    """
    d = len(w)
    sign = (-1.0) ** np.arange(len(cuts))
    q = -float(np.sum(sign * ndtr(cuts))) + len(cuts) % 2
    y = float(np.sum(sign * [phi(cut) for cut in cuts]))

    def side(t: Array) -> npt.NDArray[np.bool_]:
        return np.asarray(np.searchsorted(cuts, t) % 2 == 1)

    def draw(rng: np.random.Generator, runs: int, n: int) -> tuple[npt.NDArray[np.int64], Array, Array]:
        t = rng.standard_normal((runs, n))
        f = side(t)
        count = f.sum(axis=1)
        across = [rng.standard_normal((runs, d)) for _ in range(2)]
        across = [g - np.outer(g @ w, w) for g in across]
        for_, against = (np.sqrt(k)[:, None] * g for k, g in zip((count, n - count), across, strict=True))
        return count, np.outer((t * f).sum(axis=1), w) + for_, np.outer(t.sum(axis=1), w) + for_ + against

    return Known(f"{name}, d={d}", q, y * w, draw, lambda u: side(u @ w), tuple(cuts))


def slab(w: Array, low: float, high: float, name: str = "slab") -> Known:
    """f = 1 where low <= w.u <= high, w a unit vector; a half-space where low = -inf."""
    return stripes(w, (low, high), name)


def half_space(w: Array, margin: float) -> Known:
    """f = 1 where w.u <= margin: the l2 radius is `margin`."""
    return slab(w, -math.inf, margin, "half-space")


def ball(shift: Array, radius: float) -> Known:
    """f = 1 where |u + shift| <= radius; drawn sample by sample."""
    d, length2 = len(shift), float(shift @ shift)
    inside, wider = (float(ncx2.cdf(radius**2, k, length2)) for k in (d, d + 2))

    def draw(rng: np.random.Generator, runs: int, n: int) -> tuple[npt.NDArray[np.int64], Array, Array]:
        count, sum_uf, sum_u = np.empty(runs, dtype=np.int64), np.empty((runs, d)), np.empty((runs, d))
        step = max(1, 2_000_000 // (n * d))
        for start in range(0, runs, step):
            u = rng.standard_normal((min(step, runs - start), n, d), dtype=np.float32)
            f = (((u + shift.astype(np.float32)) ** 2).sum(axis=2) <= radius**2).astype(np.float32)
            part = slice(start, start + len(u))
            count[part] = f.sum(axis=1)
            sum_uf[part] = (f[:, None, :] @ u)[:, 0]
            sum_u[part] = u.sum(axis=1)
        return count, sum_uf, sum_u

    # d/d(length2) of the noncentral chi-square is half the difference of two of them.
    return Known(f"ball, d={d}", inside, shift * (wider - inside), draw, lambda u: ((u + shift) ** 2).sum(axis=1) <= radius**2)


def quadratic(axes: Array, a: tuple[float, float], c: tuple[float, float], s: float, name: str = "quadratic") -> Known:
    """f = 1 where a1 (t1 - c1)^2 + a2 (t2 - c2)^2 <= s, t = axes @ u, axes of two orthonormal rows; drawn sample by sample."""
    (a1, a2), (c1, c2), d = a, c, axes.shape[1]

    def inner(t: float) -> tuple[float, float]:
        """(P, E t2) of the votes for given t1 = t."""
        reach = math.sqrt(max((s - a1 * (t - c1) ** 2) / a2, 0.0))
        low, high = c2 - reach, c2 + reach
        inside = float(ndtr(high) - ndtr(low)), phi(low) - phi(high)
        return inside if a2 > 0.0 else (1.0 - inside[0], -inside[1])

    # Where the room for t2 begins and ends, the integrand has a square root.
    edges = [c1 + sign * math.sqrt(s / a1) for sign in (-1.0, 1.0)] if s / a1 > 0.0 else []
    pieces = list(itertools.pairwise(sorted({-10.0, *(edge for edge in edges if abs(edge) < 10.0), 10.0})))

    def integral(integrand: Callable[[float], float]) -> float:
        return sum(quad(lambda t: phi(t) * integrand(t), *piece, epsabs=1e-11, limit=200)[0] for piece in pieces)

    q, y1, y2 = integral(lambda t: inner(t)[0]), integral(lambda t: t * inner(t)[0]), integral(lambda t: inner(t)[1])

    def vote(u: Array) -> npt.NDArray[np.bool_]:
        t = u @ axes.T
        return np.asarray(a1 * (t[..., 0] - c1) ** 2 + a2 * (t[..., 1] - c2) ** 2 <= s)

    def draw(rng: np.random.Generator, runs: int, n: int) -> tuple[npt.NDArray[np.int64], Array, Array]:
        u = rng.standard_normal((runs, n, d))
        f = vote(u)
        return f.sum(axis=1), np.einsum("rn,rnd->rd", f, u), u.sum(axis=1)

    return Known(f"{name}, d={d}", q, y1 * axes[0] + y2 * axes[1], draw, vote)


def worst_votes(w: Array, eps: float, x: float, b: float) -> Known:
    """The votes that attain psi at the lam that tau takes for L / n = x: against where H(w.u) > h, P(f = 0) close to eps."""
    inverse, h, _ = affine_bound(x, b, eps)
    grid = np.linspace(-12.0, 12.0, 240_001)
    against = rare_gain(grid, 1.0 / inverse, b) > h
    cuts = grid[1:][against[1:] != against[:-1]]
    # Votes against at the far left, so that an odd number of cuts is for.
    assert against[0]
    return stripes(w, cuts.tolist(), f"worst, b={b:g}")
