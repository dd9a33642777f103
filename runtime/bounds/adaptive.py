"""The estimator "adaptive": settled bets (bets.py) where they were made, Chernoff bounds for rare votes (chernoff.py) elsewhere.

X and Y are the half means of Z = u (f - b), v = P X / |P X|, tau as in chernoff.py. X is independent of the second half, so given X

    |P y|^2 + tau1 |P y| >= P X.y = |P X| v.y    and    |P y|^2 - tau1 |P y| <= P X.y,    tau1 = tau(n1),

each with the probability of its tau1; v.y is bounded by the bets of the second half, or by (P X.Y -+ |P X| tau(n2)) / |P X|. For
any other dual norm N (an exponent's, or the l2 norm of the k largest coordinates), N(P y) = w.y for one unknown w with
|w|_2 <= kappa, and N(P Zbar) >= w.Zbar: so it is at most N(P Zbar) + kappa tau(n). No union over directions anywhere.
"""

import math
from collections.abc import Callable

import numpy as np

from ..kernels.arrays import Array
from ..statistics.summary import TARGETS, Part, Statistics
from ..threats.sets import Quantity
from .chernoff import tau

# The events that a bound rests on, and the share of its level that each gets.
EVENTS: dict[tuple[str, str], dict[str, float]] = {
    ("l2", "lower"): {"bets on the length": 0.5, "the gradient along X": 0.25, "X along the gradient": 0.25},
    ("l2", "upper"): {"the gradient along X": 0.5, "X along the gradient": 0.5},
    ("linf", "upper"): {"bets on the coordinates": 1.0},
    ("dot", "lower"): {"bets along the direction": 1.0},
    ("abs", "upper"): {"bets along the direction, with the gradient's sign": 1.0},
}
# Covers the rounding of a bet's sums many times over.
MARGIN = 1e-6


def adaptive_bound(quantity: Quantity, statistics: Statistics, q: Array, alpha: float, bets: bool = True) -> Array:
    """One bound of N inputs at level alpha, shape (N,).

    Args:
        quantity: what is bounded.
        statistics: N inputs.
        q: the lower bound of q from the same samples: the bound holds where q does, beyond that with probability 1 - alpha.
        alpha: level.
        bets: False leaves the bets aside, as for statistics that have none.
    """
    part, eps = statistics.parts[quantity.part], 1.0 - q
    total = statistics.n.sum(axis=1).astype(np.float64)

    def deviation(n: Array, level: float) -> Array:
        return tau(n, math.log(1.0 / level), statistics.b, eps)

    match quantity.norm, quantity.side:
        case "l2", side:
            return _length(part, statistics, eps, alpha, side, bets)
        case "linf", "upper":
            return _either(_upper(part.top, alpha), bets, lambda: part.linf_b + deviation(total, alpha))
        case "dot", "lower":
            return _either(_lower(part.along, alpha), bets, lambda: part.dot_b - deviation(total, alpha))
        case "abs", "upper":
            # |v.y| is s v.y for one fixed unknown sign s: only that sign's bound must hold.
            either = np.maximum(_upper(part.along_high, alpha), -_lower(part.along, alpha))
            return _either(either, bets, lambda: np.abs(part.dot_b) + deviation(total, alpha))
        case "l1" | "lp" | "sparse" as norm, "upper":
            # The l2 norm of the largest coordinates is w.y for a unit w: kappa = 1, as for the dual exponent 2.
            value, dual = (part.l1_b, 1.0) if norm == "l1" else (part.norm_b, part.dual)
            kappa = math.pow(part.coordinates, max(0.0, 1.0 / dual - 0.5))
            return np.asarray(value + kappa * deviation(total, alpha))
    raise ValueError(f"no bound known for the {quantity}")


def _length(part: Part, statistics: Statistics, eps: Array, alpha: float, side: str, bets: bool) -> Array:
    """|P y|_2 from below (the better of two) or from above."""
    n1, n2 = (n.astype(np.float64) for n in statistics.n.T)
    made = bets and not np.isnan(part.half_low).any()
    shares = EVENTS["l2", side] if made else EVENTS["l2", "upper"]
    across, along = (shares[name] * alpha for name in ("X along the gradient", "the gradient along X"))
    tau1 = tau(n1, math.log(1.0 / across), statistics.b, eps)
    sign = 1.0 if side == "upper" else -1.0
    if made:
        product = part.x_l2_b * (_upper(part.half_high, along) if side == "upper" else _lower(part.half_low, along))
    else:
        product = part.inner_b + sign * part.x_l2_b * tau(n2, math.log(1.0 / along), statistics.b, eps)
    length = 0.5 * (sign * tau1 + np.sqrt(tau1**2 + 4.0 * np.maximum(product, 0.0)))
    if made and side == "lower":
        length = np.maximum(length, _lower(part.length, shares["bets on the length"] * alpha))
    return np.asarray(np.maximum(length, 0.0))


def _either(settled: Array, bets: bool, otherwise: Callable[[], Array]) -> Array:
    """The bets' bound where they were made for all inputs, or the other one."""
    return settled if bets and not np.isnan(settled).any() else otherwise()


def _bet(bet: Array, level: float) -> tuple[Array, Array]:
    """(value, slope L) of the bet tuned nearest to this level."""
    L = math.log(1.0 / level)
    nearest = min(range(len(TARGETS)), key=lambda k: abs(math.log(L / TARGETS[k])))
    return bet[:, 0, nearest], bet[:, 1, nearest] * (L + MARGIN)


def _lower(bet: Array, level: float) -> Array:
    value, width = _bet(bet, level)
    return value - width


def _upper(bet: Array, level: float) -> Array:
    value, width = _bet(bet, level)
    return value + width
