"""A start for the dual: the linear program over classifiers that are constant on the cells of a grid (HiGHS)."""

import numpy as np
from scipy.optimize import linprog

from certlut.kernels.arrays import Array

from .dual import LIMIT, Levels

# Asked of the solver in turn: close to the information's edge it may fail at the tightest.
TOLERANCES = (1e-10, 1e-8, 1e-7)
WARY = 10.0


def solve_cells(psi: Array, likelihood: Array, levels: Levels, size: Array, price: float = LIMIT) -> tuple[Array, float, float]:
    """(multipliers, least cost, largest miss of a level over its scale): psi (m, n) and likelihood (n,) are the cells' masses.

    Each level may be missed at a price a unit of its scale, which bounds the multipliers, so that there always is a solution; its
    cost, the vote and what was paid, bounds D from above for all multipliers so bounded. The solver misses levels by its tolerance
    besides: that counts at WARY times its own multipliers, an estimate. Where it fails all the same the multipliers are 0, cost and
    miss inf.
    """
    m, n = psi.shape
    rows, level = psi / size[:, None], levels.level / size
    # The unknown of a cell is its share times its largest coefficient: tails keep their weight against the solver's tolerance.
    unit = np.maximum(np.maximum(np.abs(rows).max(axis=0), likelihood), 1e-300)
    lower, upper = levels.high > 0.0, levels.low < 0.0
    matrix = np.concatenate([rows / unit, np.eye(m)[:, lower], -np.eye(m)[:, upper]], axis=1)
    slack = matrix.shape[1] - n
    bounds = np.zeros((n + slack, 2))
    bounds[:, 1] = np.append(unit, np.full(slack, np.inf))
    both = lower & upper
    sign = np.where(lower, -1.0, 1.0)[~both]
    for tolerance in TOLERANCES:
        answer = linprog(
            np.append(likelihood / unit, np.full(slack, price)),
            A_ub=sign[:, None] * matrix[~both],
            b_ub=sign * level[~both],
            A_eq=matrix[both],
            b_eq=level[both],
            bounds=bounds,
            method="highs",
            options={"primal_feasibility_tolerance": tolerance, "dual_feasibility_tolerance": tolerance},
        )
        if answer.x is not None:
            a = np.empty(m)
            a[both] = answer.eqlin.marginals
            a[~both] = sign * answer.ineqlin.marginals
            share = np.clip(answer.x[:n] / unit, 0.0, 1.0)
            over = level - rows @ share
            missed = np.where(lower, np.maximum(over, 0.0), 0.0) + np.where(upper, np.maximum(-over, 0.0), 0.0)
            paid = float(np.minimum(WARY * (1.0 + np.abs(a)), price) @ missed)
            return a / size, float(likelihood @ share) + paid, float(missed.max(initial=0.0))
    return np.zeros(m), np.inf, np.inf
