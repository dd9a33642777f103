"""Slow, obvious references for the tails: a linear program on a grid, quadrature of a given worst set, 30-digit duals, brute force.

None of them calls the package. A profile is (eps, p_1, ..., p_K); sigma = 1.
"""

import itertools
import math

import mpmath
import numpy as np
import numpy.typing as npt
from scipy.integrate import quad
from scipy.optimize import linprog
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

Array = npt.NDArray[np.float64]
MP = mpmath.mp.clone()
MP.dps = 30
ROOT = math.sqrt(2.0 * math.pi)


def draw_profile(rng: np.random.Generator, size: int | None = None) -> tuple[float, Array, Array]:
    """(eps, tau, p) of many kinds: saturated, repeated and tiny bounds among them."""
    size = size or int(rng.integers(1, 8))
    eps = float(10.0 ** rng.uniform(-4.0, math.log10(0.49)))
    tau = np.sort(rng.uniform(-0.5, 4.0, size))
    tau += 0.05 * np.arange(size)
    p = np.minimum(eps, ndtr(-tau)) * 10.0 ** -rng.exponential(0.4, size)
    kind = rng.integers(0, 4)
    if kind == 0:
        p[rng.integers(0, size) :] = 1.0  # saturated from there on
    elif kind == 1:
        p = np.minimum.accumulate(p)
        p[: rng.integers(0, size) + 1] = p[0]
    return eps, tau, np.minimum(p, 1.0)


def cleaned(eps: float, tau: Array, p: Array) -> Array:
    """(eps, running minimum, 0)."""
    return np.append(np.minimum.accumulate(np.concatenate([[eps], np.minimum(p, ndtr(-tau))])), 0.0)


def linear_program(a: float, b: float, eps: float, tau: Array, p: Array, cells: int = 90) -> tuple[float, float]:
    """(a lower bound of B, an upper bound): h is constant on the cells of a grid whose lines run through the thresholds.

    The lower bound takes the mean of L on a cell, as it is for such an h. For the upper one, each cell's L is at most its largest.
    """
    t = np.unique(np.concatenate([np.linspace(-6.0, a + 6.5, cells), tau]))
    s = np.linspace(-6.0, b + 6.5, cells)
    t_all, s_all = np.concatenate([[-np.inf], t, [np.inf]]), np.concatenate([[-np.inf], s, [np.inf]])
    before = np.outer(np.diff(ndtr(t_all)), np.diff(ndtr(s_all)))
    after = np.outer(np.diff(ndtr(t_all - a)), np.diff(ndtr(s_all - b)))
    with np.errstate(over="ignore"):
        largest = np.exp(np.minimum(np.add.outer(a * t_all[1:], b * s_all[1:]) - 0.5 * (a * a + b * b), 700.0))
    # Cells at the far end have no largest L: all of what moves there counts.
    most = np.minimum(before * largest, 1.0)
    most[-1], most[:, -1] = after[-1], after[:, -1]
    beyond = np.add.outer(t_all[:-1], np.zeros(s_all.size - 1)).ravel()
    rows = [before.ravel()] + [np.where(beyond >= threshold, before.ravel(), 0.0) for threshold in tau]
    limits = np.concatenate([[eps], p])
    values = []
    for weight in (after, np.maximum(most, after)):
        # Shares of each cell's weight: the matrix stays well scaled.
        keep = weight.ravel() > 1e-14
        matrix = np.array([row[keep] for row in rows])
        scale = limits[:, None]
        result = linprog(-weight.ravel()[keep], A_ub=matrix / scale, b_ub=np.ones(len(limits)), bounds=(0.0, 1.0), method="highs")
        assert result.status == 0, result.message
        values.append(float(-result.fun + weight.ravel()[~keep].sum() * (1.0 if weight is not after else 0.0)))
    return values[0], values[1]


def segments(tau: Array) -> list[tuple[float, float]]:
    """The segments between -inf, tau and inf."""
    return list(itertools.pairwise([-math.inf, *tau.tolist(), math.inf]))


def worst_set(a: float, b: float, tau: Array, levels: tuple[float, ...]) -> tuple[Array, Array]:
    """(mass, shifted mass) of {L > Lam(t)} in each segment, b > 0, by adaptive quadrature."""
    mass, shifted = [], []
    for (lo, hi), level in zip(segments(tau), levels, strict=True):
        if level == math.inf:
            mass.append(0.0)
            shifted.append(0.0)
            continue

        def share(t: float, level: float = level) -> tuple[float, float]:
            edge = -math.inf if level == 0.0 else (math.log(level) - a * t + 0.5 * (a * a + b * b)) / b
            return float(ndtr(-edge)), float(ndtr(b - edge))

        low, high = max(lo, -9.0), min(hi, a + 9.0)
        kink, width = ((math.log(level) + 0.5 * (a * a + b * b)) / a, b / a) if level > 0.0 and a > 0.0 else (math.inf, 0.0)
        points = [x for x in (kink + width * w for w in (-9, -6, -4, -2, 0, 2, 4, 6, 9)) if low < x < high] or None
        if low >= high:
            mass.append(0.0)
            shifted.append(0.0)
            continue
        options = {"points": points, "epsabs": 1e-12, "epsrel": 1e-11, "limit": 400}
        mass.append(quad(lambda t: math.exp(-0.5 * t * t) / ROOT * share(t)[0], low, high, **options)[0])
        shifted.append(quad(lambda t: math.exp(-0.5 * (t - a) ** 2) / ROOT * share(t)[1], low, high, **options)[0])
    return np.array(mass), np.array(shifted)


def mp_dual(a: float, b: float, profile: Array, tau: Array, levels: tuple[float, ...]) -> mpmath.mpf:
    """The dual's value at the levels given, exactly those floats, to some 25 digits."""
    total = MP.mpf(0)
    x, y = MP.mpf(a), MP.mpf(b)
    for k, ((lo, hi), level) in enumerate(zip(segments(tau), levels, strict=True)):
        mass = MP.mpf(float(profile[k])) - MP.mpf(float(profile[k + 1]))
        if level == math.inf:
            assert mass == 0
            continue
        total += MP.mpf(level) * mass + mp_excess(x, y, MP.mpf(level), lo, hi)
    return total


def mp_excess(a: mpmath.mpf, b: mpmath.mpf, level: mpmath.mpf, lo: float, hi: float) -> mpmath.mpf:
    """E[(L - level)_+; lo <= t < hi], b >= 0."""
    a, b, level = MP.mpf(a), MP.mpf(b), MP.mpf(level)

    def upper(x: mpmath.mpf) -> mpmath.mpf:
        return MP.erfc(x / MP.sqrt(2)) / 2

    if level == 0:
        return upper(MP.mpf(lo) - a) - upper(MP.mpf(hi) - a)
    if b == 0:
        start = max(MP.mpf(lo), MP.log(level) / a + a / 2)
        if start >= hi:
            return MP.mpf(0)
        return upper(start - a) - upper(MP.mpf(hi) - a) - level * (upper(start) - upper(MP.mpf(hi)))

    def integrand(t: mpmath.mpf) -> mpmath.mpf:
        d1 = (a * t - a * a / 2 - MP.log(level)) / b + b / 2
        return MP.npdf(t - a) * upper(-d1) - level * MP.npdf(t) * upper(b - d1)

    low, high = max(lo, -12.0), min(hi, float(a) + 12.0)
    if low >= high:
        return MP.mpf(0)
    knots = {low, high, *np.arange(math.ceil(low), high, 1.0).tolist()}
    if a > 0:
        kink, width = float(MP.log(level) / a + a / 2), float(b / a)
        knots |= {x for x in (kink + width * w for w in (-16, -12, -8, -6, -4, -2, 0, 2, 4, 6, 8, 12, 16)) if low < x < high}
    return MP.quad(integrand, sorted(knots))


def corner(eps_first: float, eps_second: float, tau: Array) -> tuple[float, Array]:
    """(eps, p along the first axis) of {u1 > c1, u2 > c2} with the marginal probabilities given."""
    first = np.minimum(ndtr(-tau), eps_first)
    return eps_first * eps_second, first * eps_second


def half_space(eps: float, cosine: float, tau: Array) -> Array:
    """p of the half-space {v.u > z} of probability eps along e, v.e = cosine."""
    z = -float(ndtri(eps))
    if cosine >= 1.0 - 1e-12:
        return np.minimum(eps, ndtr(-tau))
    both = multivariate_normal(cov=[[1.0, cosine], [cosine, 1.0]])
    return np.array([float(both.cdf([-z, -threshold])) for threshold in tau])
