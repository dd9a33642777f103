"""Coverage by simulation: how often a bound misses the truth of a classifier whose gradient is known, for tests and benchmarks."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri

from certlut.bounds.binomial import lower_probability
from certlut.bounds.budget import split
from certlut.bounds.estimators import find_estimator
from certlut.bounds.gradient import gradient_bounds
from certlut.sampling.bets import Tally
from certlut.statistics.summary import BET_NAMES, Moments, Statistics, summarise
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.sets import L1, L2, LINF, Quantity, Threat, projections
from reference.naive_statistics import Array, Known, ball, best_b, half_space, phi, quadratic, slab, stripes, worst_votes

N0 = 100
CPU = torch.device("cpu")
# The truth and a bound may be the same number, rounded differently.
ROUNDING = 1e-12


def unit(d: int, seed: int) -> Array:
    """A direction with components of one sign, none of them small."""
    w = 1.0 + np.random.default_rng([seed, d]).random(d)
    return np.asarray(w / np.linalg.norm(w))


def threats_of(d: int) -> tuple[Threat, ...]:
    """Threats that between them need every kind of bound and part."""
    along = Direction(unit(d, 1) + np.random.default_rng(d).standard_normal(d) / math.sqrt(d), "along")
    line = Line(along.v, "line")
    if d == 1:
        return L1, L2, LINF, Lp(1.5), Lp(3.0), along, line
    mask = np.arange(d) % 4 == 0
    basis = np.linalg.qr(np.random.default_rng([2, d]).standard_normal((d, 2)) + unit(d, 0)[:, None])[0].T
    subspaces = (Subspace(mask, p, f"red{p:g}") for p in (1.0, 2.0, math.inf))
    return L1, L2, LINF, Lp(1.5), Lp(3.0), *subspaces, Subspace(basis=basis, p=2.0, name="span"), along, line, Sparse(2)


def quantities(threats: Sequence[Threat]) -> list[Quantity]:
    """Every bound that the threats need, once."""
    return sorted({quantity for threat in threats for quantity in threat.needs()}, key=str)


def classifiers(d: int, n: int) -> list[Known]:
    """Half-spaces, slabs, stripes, worst cases of psi at n samples; where d allows balls and thresholded quadratics."""
    w, axis = unit(d, 0), np.eye(d)[0]
    out = [half_space(w, float(ndtri(q))) for q in (0.55, 0.9, 0.99, 0.999)]
    out += [slab(w, -1.9, 1.5), slab(axis, -2.5, 3.0), stripes(axis, (-1.7, -0.9, -0.5, 0.1, 0.2), "random")]
    out += [worst_votes(w, eps, 5.0 / n, float(best_b(eps))) for eps in (0.3, 0.1, 0.01, 0.001)]
    if d >= 4:
        rng = np.random.default_rng([5, d])
        out.append(ball(w, math.sqrt(d + 1.0) * 1.1))
        for name, sizes, s in (("ellipse", (1.0, 0.3), 5.0), ("hyperbola", (1.0, -0.7), 3.5)):
            axes = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
            out.append(quadratic(axes, sizes, (float(rng.normal()), float(rng.normal())), s, name))
    return [replace(known, name=f"{known.name.partition(',')[0]}, q={known.q:.3f}") for known in out]


def tallied(known: Known, threats: Sequence[Threat], runs: int, n: int, seed: int, tally: Any = Tally) -> list[Moments]:
    """`runs` independent samplings through the tally, row by row."""
    rng, parts, out = np.random.default_rng([7, seed]), projections(threats), []
    assert known.vote is not None
    for _ in range(runs):
        u = rng.standard_normal((n, known.d))
        one = tally(parts, known.d, n, (int(rng.binomial(N0, 1.0 - known.q)), N0), CPU)
        one.add(torch.from_numpy(u), torch.from_numpy(known.vote(u)))
        out.append(one.moments())
    return out


def sampled(known: Known, threats: Sequence[Threat], runs: int, n: int, seed: int, tally: Any = Tally) -> Statistics:
    """`tallied`, summarised."""
    return summarise(tallied(known, threats, runs, n, seed, tally), threats, 1.0)


def without_bets(statistics: Statistics) -> Statistics:
    """As of samples that were not bet on."""
    parts = {
        name: replace(part, **{bet: np.full_like(getattr(part, bet), math.nan) for bet in BET_NAMES})
        for name, part in statistics.parts.items()
    }
    return replace(statistics, parts=parts)


def missed(
    known: Known, threats: Sequence[Threat], statistics: Statistics, quantity: Quantity, alpha: float, estimator: str = "adaptive"
) -> npt.NDArray[np.bool_]:
    """Where one bound, at level alpha and with q known exactly, is on the wrong side; `estimator` may be "chernoff": no bets."""
    if estimator == "chernoff":
        estimator, statistics = "adaptive", without_bets(statistics)
    bound = find_estimator(estimator).bound(quantity, statistics, np.full(len(statistics), known.q), alpha)
    truth = known.truth(quantity, threats)
    return np.asarray(bound < truth - ROUNDING if quantity.side == "upper" else bound > truth + ROUNDING)


def missed_together(
    known: Known, threats: Sequence[Threat], statistics: Statistics, alpha: float, estimator: str = "adaptive"
) -> npt.NDArray[np.bool_]:
    """Where the input is certified and q or any of the bounds that are paid for by one alpha is on the wrong side."""
    budget = split(alpha, threats, estimator, proposed=statistics.proposed)
    q = lower_probability(statistics.count.sum(axis=1), statistics.n.sum(axis=1), budget.q)
    sure = q > 0.5
    rim = np.array([phi(float(ndtri(a))) for a in np.where(sure, q, 0.5)]) * (1.0 + 1e-12)
    bounds = gradient_bounds(statistics, budget, np.where(sure, q, 0.0), rim)
    wrong = q > known.q
    for quantity, bound in bounds.items():
        truth = known.truth(quantity, threats)
        wrong |= bound < truth - ROUNDING if quantity.side == "upper" else bound > truth + ROUNDING
    return np.asarray(sure & wrong)


def allowed(alpha: float, runs: int) -> float:
    """A miss rate that is alpha within four of its standard errors."""
    return alpha + 4.0 * math.sqrt(alpha * (1.0 - alpha) / runs)
