"""Every norm bound of the gradient that a budget pays for, then tightened by what is free."""

import math
from collections.abc import Mapping

import numpy as np

from ..kernels.arrays import Array
from ..statistics.summary import REACHES, Part, Statistics
from ..threats.sets import ALL, Quantity
from .budget import Budget
from .direction import SLACK, dual_norm


def gradient_bounds(statistics: Statistics, budget: Budget, q: Array, rim: Array) -> dict[Quantity, Array]:
    """All bounds at the budget's levels, by its estimator.

    Args:
        statistics: N inputs.
        budget: the estimator and the levels.
        q: lower bound of the class's probability at the budget's level, shape (N,); above 1/2 where the result counts.
        rim: phi(Phi^-1(q)), the largest |y|_2 that q allows, shape (N,).

    Returns:
        Quantity -> bound, shape (N,).
    """
    levels = budget.norms
    bounds = {quantity: budget.estimator.bound(quantity, statistics, q, level) for quantity, level in levels.items()}
    return _beside(tighten(bounds, statistics.parts, rim), statistics, budget, rim)


def _beside(bounds: dict[Quantity, Array], statistics: Statistics, budget: Budget, rim: Array) -> dict[Quantity, Array]:
    """Upper bounds from what is known along single directions (direction.py), on events that are paid for already."""
    length = np.fmin(bounds.get(Quantity(ALL, "l2", "upper"), rim), rim)
    out = dict(bounds)
    for quantity in bounds:
        part = statistics.parts[quantity.part]
        if quantity.side == "upper" and _made(part.reach):
            kind = REACHES.index(quantity.norm if quantity.norm in REACHES else "norm")
            for low, k in budget.estimator.leads(quantity, statistics, budget.norms):
                reach = part.reach[:, kind, k] * (1.0 + SLACK)
                out[quantity] = np.fmin(out[quantity], dual_norm(low, length, reach, _over_length(quantity, part)))
    return out


def _made(reach: Array) -> bool:
    return not np.isnan(reach).any()


def _over_length(quantity: Quantity, part: Part) -> float:
    """The dual norm is at most this times |P y|_2."""
    dual = {"l1": 1.0, "l2": 2.0, "linf": math.inf}.get(quantity.norm, part.dual)
    return math.pow(part.coordinates, max(0.0, 1.0 / dual - 0.5))


def tighten(bounds: Mapping[Quantity, Array], parts: Mapping[str, Part], rim: Array) -> dict[Quantity, Array]:
    """What norms say of each other.

    |P y|_inf <= |P y|_p' <= |P y|_2 <= |y|_2 <= rim for p' >= 2, |P y|_p' <= coordinates^(1/p' - 1/2) |P y|_2 below; the l2 norm of
    k coordinates is at most sqrt(k) |y|_inf.
    """
    # fmin, fmax: a bound that says nothing (NaN) leaves what is free.
    length = np.fmin(bounds.get(Quantity(ALL, "l2", "upper"), rim), rim)
    out: dict[Quantity, Array] = {}
    for quantity, bound in bounds.items():
        part = parts[quantity.part]
        limit = np.fmin(bounds.get(Quantity(quantity.part, "l2", "upper"), length), length)
        if quantity.norm == "dot":
            out[quantity] = np.fmax(bound, -length)
        elif quantity.side == "lower":
            out[quantity] = np.clip(np.fmax(bound, 0.0), 0.0, rim)
        else:
            if quantity.norm == "sparse":
                bound = np.fmin(bound, math.sqrt(part.largest) * bounds.get(Quantity(ALL, "linf", "upper"), limit))
            out[quantity] = np.maximum(np.fmin(bound, _over_length(quantity, part) * limit), 0.0)
    return out
