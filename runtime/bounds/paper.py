"""The estimator "paper": Table 1 of Mohapatra et al. (2020) with its errata corrected (docs/theory.md).

Z = u (f - 1/2) is sub-gaussian with constant K in every direction, whatever f is; norms take a union over directions.
"""

import math

import numpy as np
from scipy.optimize import brentq

from ..kernels.arrays import Array, Counts
from ..statistics.summary import Part, Statistics
from ..threats.projections import Projection
from ..threats.sets import Quantity
from .estimator import Estimator, Events

# The events behind each bound, by (norm, side), and the share of the bound's level that each gets.
EVENTS: dict[tuple[str, str], Events] = {
    ("l2", "lower"): {"the noise of one half along the other's": 0.5, "noise along the gradient": 0.5},
    ("l2", "upper"): {"the noise of one half along the other's": 0.5, "noise along the gradient": 0.5},
    ("linf", "upper"): {"all signed coordinate axes": 1.0},
    ("l1", "upper"): {"all sign vectors": 1.0},
    ("dot", "lower"): {"the mean along the direction": 1.0},
    ("abs", "upper"): {"the mean along the direction, both signs": 1.0},
}
# log E exp(v.(Z - y)) <= K |v|^2 / 2 for b = 1/2 and every f.
K = 0.25 + 3.0 / math.sqrt(8.0 * math.pi * math.e)


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


class Paper(Estimator):
    """Table 1: norms l1, l2 and linf, and the gradient along a direction."""

    name = "paper"

    def events(self, quantity: Quantity, projection: Projection, bets: bool = True, proposed: bool = False) -> Events | None:
        """The same whether bets were made or not."""
        return EVENTS.get((quantity.norm, quantity.side))

    def bound(self, quantity: Quantity, statistics: Statistics, q: Array, level: float) -> Array:
        """Whatever q is."""
        part = statistics.parts[quantity.part]
        total = statistics.n.sum(axis=1).astype(np.float64)
        match quantity.norm, quantity.side:
            case "l2", side:
                return _length(part, statistics.n, level, side)
            case "linf", "upper":
                # Union over the signed coordinate axes.
                return part.linf + deviation(total, math.log(2.0 * part.coordinates / level))
            case "l1", "upper":
                # Union over the sign vectors, each of length sqrt(coordinates).
                union = part.coordinates * math.log(2.0) + math.log(1.0 / level)
                return part.l1 + math.sqrt(part.coordinates) * deviation(total, union)
            case "dot", "lower":
                return part.dot - deviation(total, math.log(1.0 / level))
            case "abs", "upper":
                # Union over both signs.
                return np.asarray(np.abs(part.dot) + deviation(total, math.log(2.0 / level)))
        raise ValueError(f"estimator 'paper' has no bound of the {quantity}: its norms are l1, l2 and linf")


PAPER = Paper()
