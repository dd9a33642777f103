"""Confidence bounds: q from the votes, every norm of the gradient y = E[u f] from the half means, vectorised over inputs.

Z = u (f - 1/2) has mean y whatever f is, and is sub-gaussian with constant K in every direction. X and Y are its means over the two
halves of n1 and n2 samples. Estimator "paper" is Table 1 of Mohapatra et al. (2020) with its errata corrected (docs/theory.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import betainccinv, betaincinv

from .budget import Budget
from .threats import ALL, Mask, Quantity, Threat, projection_key, projections

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# log E exp(v.(Z - y)) <= K |v|^2 / 2 for b = 1/2 and every f.
K = 0.25 + 3.0 / math.sqrt(8.0 * math.pi * math.e)
ESTIMATORS = ("paper",)
# The fields of a Part that are arrays, in order.
SCALARS = ("inner", "x_l2", "y_l2", "l1", "l2", "linf", "dot")


@dataclass(frozen=True)
class Moments:
    """Sums over the two halves of one input's samples: what the sampler keeps, whatever the estimator."""

    n: Counts
    """Samples, shape (2,)."""
    count: Counts
    """Votes for the class, shape (2,)."""
    sum_uf: Array
    """Sum of u f, shape (2, d), in sigma = 1 units."""
    sum_u: Array
    """Sum of u, shape (2, d)."""


@dataclass(frozen=True)
class Part:
    """Scalars of one part of the gradient, each of shape (N,)."""

    d: int
    """Coordinates of the part; 1 for a direction."""
    inner: Array
    """X.Y"""
    x_l2: Array
    y_l2: Array
    l1: Array
    """|Zbar|_1 of the pooled mean; likewise l2 and linf."""
    l2: Array
    linf: Array
    dot: Array
    """v.Zbar along a direction; 0 for a subspace."""
    key: str = ""
    """Identifies the mask or direction (`threats.projection_key`); empty for the whole gradient."""


@dataclass(frozen=True)
class Statistics:
    """What sampling leaves of N inputs: votes and samples per half, shape (N, 2), and the declared parts of the gradient."""

    count: Counts
    n: Counts
    sigma: float
    """Noise level in input units."""
    d: int
    """Coordinates of an input."""
    parts: Mapping[str, Part]

    def __len__(self) -> int:
        return len(self.count)

    def check(self, threats: Sequence[Threat]) -> None:
        """ValueError unless these numbers can be what sampling left, and hold what the threats need."""
        shape = self.count.shape
        if len(shape) != 2 or shape[1] != 2 or self.n.shape != shape:
            raise ValueError(f"statistics: count has shape {shape}, n {self.n.shape}; expected (N, 2) for both")
        if not (math.isfinite(self.sigma) and self.sigma > 0 and self.d >= 1):
            raise ValueError(f"statistics: sigma = {self.sigma}, d = {self.d}; expected positive numbers")
        if not ((self.n >= 1) & (self.count >= 0) & (self.count <= self.n)).all():
            raise ValueError("statistics: expected 0 <= count <= n and n >= 1 in every half")
        for name, by in projections(threats).items():
            part = self.parts.get(name)
            if part is None:
                raise ValueError(f"statistics: nothing was kept for {name!r}; sampled for {', '.join(self.parts)}")
            size = self.d if by is None else _size(by, self.d)
            if part.key != projection_key(by) or part.d != size or (by is not None and by.size != self.d):
                raise ValueError(f"statistics: {name!r} was sampled with another mask, direction or input shape")
            norms = (part.x_l2, part.y_l2, part.l1, part.l2, part.linf)
            values = (part.inner, part.dot, *norms)
            if any(value.shape != shape[:1] or not np.isfinite(value).all() for value in values):
                raise ValueError(f"statistics: {name!r} has missing or non-finite values")
            if any((norm < 0).any() for norm in norms) or (np.abs(part.inner) > part.x_l2 * part.y_l2 * (1 + 1e-9) + 1e-300).any():
                raise ValueError(f"statistics: the norms and inner products of {name!r} contradict each other")


def summarise(moments: Sequence[Moments], threats: Sequence[Threat], sigma: float) -> Statistics:
    """Reduce sums to the scalars that the threats' bounds need; N = len(moments) inputs of one shape."""
    d = moments[0].sum_u.shape[1]
    wanted = projections(threats)
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in wanted}
    for m in moments:
        # Z = u (f - 1/2): zero-mean noise of the votes it can do without, whatever f is.
        x, y = (m.sum_uf - 0.5 * m.sum_u) / m.n[:, None]
        pooled = (m.n[0] * x + m.n[1] * y) / m.n.sum()
        for name, by in wanted.items():
            rows[name].append(_scalars(x, y, pooled, by))
    parts = {}
    for name, by in wanted.items():
        columns: dict[str, Any] = dict(zip(SCALARS, np.array(rows[name]).T, strict=True))
        parts[name] = Part(d=_size(by, d), key=projection_key(by), **columns)
    return Statistics(np.stack([m.count for m in moments]), np.stack([m.n for m in moments]), sigma, d, parts)


def _size(by: Mask | Array | None, d: int) -> int:
    return d if by is None else int(by.sum()) if by.dtype == np.bool_ else 1


def _scalars(x: Array, y: Array, pooled: Array, by: Mask | Array | None) -> tuple[float, ...]:
    """The fields of a Part for one input: on all coordinates, on a mask's, or along a unit vector."""
    dot = 0.0
    if by is not None and by.dtype == np.bool_:
        x, y, pooled = x[by], y[by], pooled[by]
    elif by is not None:
        x, y, pooled = (np.array([float(by @ a)]) for a in (x, y, pooled))
        dot = float(pooled[0])
    size = np.abs(pooled)
    norms = (float(size.sum()), float(np.linalg.norm(size)), float(size.max(initial=0.0)))
    return (float(x @ y), float(np.linalg.norm(x)), float(np.linalg.norm(y)), *norms, dot)


def lower_probability(count: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Array:
    """Clopper-Pearson: P(result > q) <= alpha. Accurate relative to 1 - q, and rounded down."""
    count, n = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    some = count > 0
    # The upper bound of 1 - q from the n - count votes against.
    against = betainccinv(np.where(some, n - count + 1.0, 1.0), np.where(some, count, 1.0), alpha)
    return np.asarray(np.where(some, np.maximum(1.0 - against * (1.0 + 1e-10) - 1e-15, 0.0), 0.0), dtype=np.float64)


def upper_probability(count: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Array:
    """Clopper-Pearson: P(result < q) <= alpha, rounded up."""
    count, n = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    some = count < n
    value = 1.0 - betaincinv(np.where(some, n - count, 1.0), np.where(some, count + 1.0, 1.0), alpha)
    return np.asarray(np.where(some, np.minimum(value * (1.0 + 1e-10) + 1e-15, 1.0), 1.0), dtype=np.float64)


def least_n(alpha: float) -> int:
    """The least n whose unanimous vote proves q > 1/2 at level alpha: alpha^(1/n) > 1/2."""
    return math.floor(math.log(1.0 / alpha) / math.log(2.0)) + 1


def deviation(n: Array, log_inverse: float) -> Array:
    """tau with P(v.(mean of n) - v.y > tau) <= exp(-log_inverse), for one unit direction v: sqrt(2 K log(1/a) / n)."""
    return np.sqrt(2.0 * K * log_inverse / n)


def product_quantile(d: int, log_inverse: float) -> float:
    """t / (k sqrt(1/(n1 n2))) with P(eta1.eta2 > t) <= exp(-log_inverse) for sub-gaussian errors in d dimensions.

    Chernoff with E exp(lam eta1.eta2) <= (1 - lam^2 k1 k2)^(-d/2), optimised: the root of tau x + log(1 - x^2)/2 = L/d,
    x = (sqrt(1 + 4 tau^2) - 1) / (2 tau), times d.
    """
    target = log_inverse / d

    def surplus(tau: float) -> float:
        x = 2.0 * tau / (math.sqrt(1.0 + 4.0 * tau * tau) + 1.0)
        # 1 - x^2 = x / tau, by the equation that x solves.
        return tau * x + 0.5 * math.log(x / tau) - target

    high = 2.0 * (target + math.sqrt(target)) + 1.0
    root: float = brentq(surplus, 1e-9 * math.sqrt(target), high, xtol=1e-15, rtol=1e-12)
    # A larger tau is valid too: its Chernoff exponent is larger.
    return d * root * (1.0 + 1e-9)


def _length(part: Part, n: Counts, alpha: float, side: str) -> Array:
    """One-sided bound of |P y|_2 at level alpha from X.Y: half of alpha for eta1.eta2, half for y.(eta1 + eta2)."""
    n1, n2 = n[:, 0].astype(np.float64), n[:, 1].astype(np.float64)
    log_inverse = math.log(2.0 / alpha)
    t = product_quantile(part.d, log_inverse) * K / np.sqrt(n1 * n2)
    sign = 1.0 if side == "upper" else -1.0
    square = part.inner + sign * t
    # |y|^2 - sign 2 half |y| = XY + sign t; the root is that of the errata, sqrt(S) (sqrt(1 + e^2) +- e).
    half = np.sqrt(0.5 * K * (1.0 / n1 + 1.0 / n2) * log_inverse)
    root = np.sqrt(np.maximum(square + half**2, 0.0)) + sign * half
    return np.asarray(np.maximum(root, 0.0), dtype=np.float64)


def _paper(quantity: Quantity, statistics: Statistics, alpha: float) -> Array:
    part = statistics.parts[quantity.part]
    total = statistics.n.sum(axis=1).astype(np.float64)
    match quantity.norm, quantity.side:
        case "l2", side:
            return _length(part, statistics.n, alpha, side)
        case "linf", "upper":
            # Union over the 2 d signed coordinate axes.
            return part.linf + deviation(total, math.log(2.0 * part.d / alpha))
        case "l1", "upper":
            # Union over the 2^d sign vectors, each of length sqrt(d).
            return part.l1 + math.sqrt(part.d) * deviation(total, part.d * math.log(2.0) + math.log(1.0 / alpha))
        case "dot", "lower":
            return part.dot - deviation(total, math.log(1.0 / alpha))
    raise ValueError(f"no bound known for the {quantity}")


def gradient_bounds(statistics: Statistics, budget: Budget, rim: Array, estimator: str) -> dict[Quantity, Array]:
    """Every norm bound of the budget at its level, then tightened by what is free.

    Args:
        statistics: N inputs.
        budget: the levels.
        rim: phi(Phi^-1(q_lower)), the largest |y|_2 that q allows, shape (N,).
        estimator: "paper".

    Returns:
        Quantity -> bound, shape (N,): upper bounds are at most, lower bounds at most `rim` (norm inequalities on the same events).
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r}: expected one of {', '.join(ESTIMATORS)}")
    bounds = {quantity: _paper(quantity, statistics, level) for quantity, level in budget.norms.items()}
    return tighten(bounds, {name: part.d for name, part in statistics.parts.items()}, rim)


def tighten(bounds: Mapping[Quantity, Array], dimension: Mapping[str, int], rim: Array) -> dict[Quantity, Array]:
    """|P y|_inf <= |P y|_2 <= |y|_2 <= rim and |P y|_1 <= sqrt(d_P) |P y|_2, applied to every bound."""
    length = np.minimum(bounds.get(Quantity(ALL, "l2", "upper"), rim), rim)
    out: dict[Quantity, Array] = {}
    for quantity, bound in bounds.items():
        limit = np.minimum(bounds.get(Quantity(quantity.part, "l2", "upper"), length), length)
        if quantity.norm == "dot":
            out[quantity] = np.maximum(bound, -length)
        elif quantity.side == "lower":
            out[quantity] = np.clip(bound, 0.0, rim)
        elif quantity.norm == "l1":
            out[quantity] = np.minimum(bound, math.sqrt(dimension[quantity.part]) * limit)
        else:
            out[quantity] = np.minimum(bound, limit)
    return out
