"""The estimator "adaptive": settled bets (bets.py) where they were made, Chernoff bounds for rare votes (chernoff.py) elsewhere.

X and Y are the half means of Z = u (f - b), v = P X / |P X|, tau as in chernoff.py. X is independent of the second half, so given X

    |P y|^2 + tau1 |P y| >= P X.y = |P X| v.y    and    |P y|^2 - tau1 |P y| <= P X.y,    tau1 = tau(n1),

each with the probability of its tau1; v.y is bounded by the bets of the second half, or by (P X.Y -+ |P X| tau(n2)) / |P X|. For
any other dual norm N (an exponent's, or the l2 norm of the k largest coordinates), N(P y) = w.y for one unknown w with
|w|_2 <= kappa, and N(P Zbar) >= w.Zbar: so it is at most N(P Zbar) + kappa tau(n). No union over directions anywhere.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from ..kernels.arrays import Array
from ..statistics.summary import BETS, TARGETS, Part, Statistics
from ..threats.projections import Projection
from ..threats.sets import ALL, LENGTH, Quantity
from .chernoff import tau
from .estimator import Estimator, Events

# The events behind the bounds that bets give, by (norm, side), and the share of the bound's level that each gets.
BET_EVENTS: dict[tuple[str, str], Events] = {
    ("l2", "lower"): {"bets on the length": 0.5, "the gradient along X": 0.25, "X along the gradient": 0.25},
    ("l2", "upper"): {"the gradient along X": 0.5, "X along the gradient": 0.5},
    ("linf", "upper"): {"bets on the coordinates": 1.0},
    ("dot", "lower"): {"bets along the direction": 1.0},
    ("abs", "upper"): {"bets along the direction, with the gradient's sign": 1.0},
}
# Where the model's gradient was proposed, bets on the length have a direction from the first sample on; the rest is for a model
# whose gradient is not that of its votes. By what proposes, never by what came of it.
LARGER, ATTAINED = "bets along the larger coordinates", "the means along the vector that the norm is attained at"
PROPOSED_EVENTS: dict[tuple[str, str], Events] = {
    ("l2", "lower"): {"bets on the length": 0.875, "the gradient along X": 0.0625, "X along the gradient": 0.0625},
    ("l1", "upper"): {ATTAINED: 0.75, LARGER: 0.25},
}
# The same where no bets were made.
MEAN_EVENTS: dict[tuple[str, str], Events] = {
    ("l2", "lower"): BET_EVENTS["l2", "upper"],
    ("l2", "upper"): BET_EVENTS["l2", "upper"],
    **{(norm, "upper"): {ATTAINED: 1.0} for norm in ("linf", "l1", "lp", "sparse")},
    ("dot", "lower"): {"the mean along the direction": 1.0},
    ("abs", "upper"): {"the mean along the direction, with the gradient's sign": 1.0},
}
# Covers the rounding of a bet's sums many times over.
MARGIN = 1e-6


class Adaptive(Estimator):
    """Bets and Chernoff bounds, at the levels of one direction throughout."""

    name = "adaptive"

    def events(self, quantity: Quantity, projection: Projection, bets: bool = True, proposed: bool = False) -> Events | None:
        """Bets on coordinates are made where the part's numbers are coordinates."""
        kind = quantity.norm, quantity.side
        made = bets and (quantity.norm != "linf" or projection.keeps_coordinates)
        events = _events(made, proposed)
        return events.get(kind, MEAN_EVENTS.get(kind))

    def leads(self, quantity: Quantity, statistics: Statistics, levels: Mapping[Quantity, float]) -> Iterator[tuple[Array, int]]:
        """By the bets on the length: D.y / |D| is bounded on their event, whatever D the samples led to; and by those of |y|_1."""
        whole = statistics.parts[ALL]
        if _made(whole.length) and LENGTH in levels:
            level = _events(True, statistics.proposed)["l2", "lower"]["bets on the length"] * levels[LENGTH]
            yield _lower(whole.length, level), _nearest(math.log(1.0 / level))
        if quantity.norm == "l1" and _made(statistics.parts[quantity.part].length) and statistics.proposed:
            # NaN where this input had no proposal: that says nothing.
            yield _lower(whole.thin, PROPOSED_EVENTS["l1", "upper"][LARGER] * levels[quantity]), BETS

    def bound(self, quantity: Quantity, statistics: Statistics, q: Array, level: float) -> Array:
        """By the bets where they were made for all inputs."""
        part, eps = statistics.parts[quantity.part], 1.0 - q
        total = statistics.n.sum(axis=1).astype(np.float64)

        def deviation(share: float = 1.0) -> Array:
            return tau(total, math.log(1.0 / (share * level)), statistics.b, eps)

        match quantity.norm, quantity.side:
            case "l2", side:
                return _length(part, statistics, eps, level, side)
            case "linf", "upper":
                return _upper(part.top, level) if _made(part.top) else part.linf_b + deviation()
            case "dot", "lower":
                return _lower(part.along, level) if _made(part.along) else part.dot_b - deviation()
            case "abs", "upper":
                # |v.y| is s v.y for one fixed unknown sign s: only that sign's bound must hold.
                if _made(part.along) and _made(part.along_high):
                    return np.maximum(_upper(part.along_high, level), -_lower(part.along, level))
                return np.asarray(np.abs(part.dot_b) + deviation())
            case ("l1" | "lp" | "sparse") as norm, "upper" as side:
                # The l2 norm of the largest coordinates is w.y for a unit w: kappa = 1, as for the dual exponent 2.
                value, dual = (part.l1_b, 1.0) if norm == "l1" else (part.norm_b, part.dual)
                kappa = math.pow(part.coordinates, max(0.0, 1.0 / dual - 0.5))
                events = _events(_made(part.length), statistics.proposed)
                return np.asarray(value + kappa * deviation(events.get((norm, side), MEAN_EVENTS[norm, side])[ATTAINED]))
        raise ValueError(f"no bound known for the {quantity}")


ADAPTIVE = Adaptive()


def _events(bets: bool, proposed: bool) -> Mapping[tuple[str, str], Events]:
    if not bets:
        return MEAN_EVENTS
    return BET_EVENTS | PROPOSED_EVENTS if proposed else BET_EVENTS


def _length(part: Part, statistics: Statistics, eps: Array, level: float, side: str) -> Array:
    """|P y|_2 from below (the better of two) or from above."""
    n1, n2 = (n.astype(np.float64) for n in statistics.n.T)
    made = _made(part.half_low)
    shares = _events(made, statistics.proposed)["l2", side]
    across, along = (shares[name] * level for name in ("X along the gradient", "the gradient along X"))
    tau1 = tau(n1, math.log(1.0 / across), statistics.b, eps)
    sign = 1.0 if side == "upper" else -1.0
    if made:
        product = part.x_l2_b * (_upper(part.half_high, along) if side == "upper" else _lower(part.half_low, along))
    else:
        product = part.inner_b + sign * part.x_l2_b * tau(n2, math.log(1.0 / along), statistics.b, eps)
    length = 0.5 * (sign * tau1 + np.sqrt(tau1**2 + 4.0 * np.maximum(product, 0.0)))
    if made and side == "lower":
        length = np.maximum(length, _lower(part.length, shares["bets on the length"] * level))
    return np.asarray(np.maximum(length, 0.0))


def _made(bet: Array) -> bool:
    """Whether it was made for all inputs."""
    return not np.isnan(bet).any()


def _bet(bet: Array, level: float) -> tuple[Array, Array]:
    """(value, slope L) of the bet tuned nearest to this level."""
    L = math.log(1.0 / level)
    k = _nearest(L)
    return bet[:, 0, k], bet[:, 1, k] * (L + MARGIN)


def _nearest(L: float) -> int:
    return min(range(len(TARGETS)), key=lambda k: abs(math.log(L / TARGETS[k])))


def _lower(bet: Array, level: float) -> Array:
    value, width = _bet(bet, level)
    return value - width


def _upper(bet: Array, level: float) -> Array:
    value, width = _bet(bet, level)
    return value + width
