"""From statistics to certified radii, vectorised over inputs: bounds, then (q, m1, m2) per threat, then the table. No torch."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from .beyond import extended, tail_users
from .bounds.binomial import lower_probability
from .bounds.budget import Budget, split
from .bounds.classes import class_bounds, undecided
from .bounds.gradient import gradient_bounds
from .bounds.looks import Looks
from .kernels.arrays import Array
from .lookup.table import Table, load
from .lookup.tails import TailTable, load_tails
from .statistics.records import take
from .statistics.summary import Statistics
from .threats.declare import resolve
from .threats.sets import ALL, L2, LENGTH, Quantity, Threat, containment

# "first-order" is the paper's own method; "tails" adds docs/tails.md.
CERTIFICATES = ("tails", "first-order")
# "l2" is always certified, and needs it.
TOP = Quantity(ALL, "l2", "upper")


@dataclass(frozen=True)
class Evaluation:
    """Everything certified about N inputs at one alpha."""

    q_lower: Array
    """Lower bound of the class's probability at the budget's level, shape (N,)."""
    radius: dict[str, Array]
    """Threat -> radius in input units, shape (N,), 0 where it abstains; "cohen", at the full alpha, is outside the guarantee."""
    sure: npt.NDArray[np.bool_]
    """Whether the class is certified, shape (N,), with more than half of the votes or more than every other; else it abstains."""
    bounds: dict[Quantity, Array]
    budget: Budget
    inside: dict[str, float]
    """Threat -> size of an l2 ball over that of the threat's largest ball inside it."""

    @property
    def length(self) -> tuple[Array, Array]:
        """(lower, upper) bounds of |y|_2, each of shape (N,); 0 below where no threat asks for a lower one."""
        upper = self.bounds[TOP]
        return self.bounds.get(LENGTH, np.zeros_like(upper)), upper


def evaluate(
    statistics: Statistics,
    threats: Sequence[str | Threat],
    alpha: float,
    estimator: str,
    table: Table,
    tails: TailTable | None = None,
) -> Evaluation:
    """Bounds and radii of every input; all radii but "cohen" hold together with probability >= 1 - alpha, per input.

    Without a tail table, or where no tails were counted, the certificates are first-order ones. Inputs whose selection votes are
    divided have a budget of their own: the other classes are bounded, too. Inputs sampled in looks have the level of the look that
    they were stopped at, "cohen" too; one that spends nothing certifies nothing.

    Raises:
        ValueError: statistics that are damaged or lack what a threat needs; alpha, estimator or a threat that is not known; a table
            bound to another sigma.
    """
    threats = resolve(threats)
    statistics.check(threats)
    table.check_sigma(statistics.sigma)
    users = {} if tails is None else tail_users(statistics, threats)
    budget = budget_of(statistics, threats, alpha, estimator, users)
    looks, plain, n = Looks.of(statistics.schedule), replace(statistics, schedule={}), statistics.n.sum(axis=1)
    if looks is None or not len(statistics):
        if alpha > 0.5 and n.size and n.min() < n.max():
            # Before there were looks, what was stopped was certain to abstain for alpha <= 1/2 only.
            raise ValueError(f"alpha = {alpha}: expected at most 1/2 where inputs have different numbers of samples")
        return replace(_at_level(plain, threats, alpha, budget, table, tails), budget=budget)
    looks.check(statistics.looks, n)
    made, places = [], []
    for look in np.unique(statistics.looks):
        where, level = np.flatnonzero(statistics.looks == look), looks.level(look, alpha)
        # A look that spends nothing certifies nothing, whatever its bounds are.
        one = budget_of(plain, threats, level or alpha, estimator, users)
        found = _at_level(take(plain, where.tolist()), threats, level or alpha, one, table, tails)
        made.append(found if level > 0.0 else _nothing(found))
        places.append(where)
    return replace(_together(made, np.argsort(np.concatenate(places))), budget=budget)


def _nothing(found: Evaluation) -> Evaluation:
    """The same inputs with nothing certified, and bounds that say nothing."""
    none = np.zeros_like(found.q_lower)
    free = {"upper": np.inf, "lower": -np.inf}
    bounds = {what: none + (0.0 if what.side == "lower" and what.norm == "l2" else free[what.side]) for what in found.bounds}
    return replace(found, q_lower=none, sure=none > 0.0, radius=dict.fromkeys(found.radius, none), bounds=bounds)


def _at_level(
    statistics: Statistics, threats: tuple[Threat, ...], alpha: float, budget: Budget, table: Table, tails: TailTable | None
) -> Evaluation:
    """Inputs that have one alpha, in one or two budgets."""
    votes, n = statistics.count.sum(axis=1), statistics.n.sum(axis=1)
    apart = undecided(statistics.selection) & (budget.divided is not None)
    if apart.any() and budget.divided is not None:
        groups = [(np.flatnonzero(which), one) for which, one in ((~apart, budget), (apart, budget.divided)) if which.any()]
        made = [_evaluate(take(statistics, where.tolist()), threats, one, table, tails) for where, one in groups]
        found = _together(made, np.argsort(np.concatenate([where for where, _ in groups])))
    else:
        found = _evaluate(statistics, threats, budget, table, tails)
    baseline = lower_probability(votes, n, alpha)
    cohen = np.where(baseline > 0.5, -ndtri(1.0 - np.maximum(baseline, 0.5)) * statistics.sigma, 0.0)
    return replace(found, radius=found.radius | {"cohen": cohen})


def budget_of(
    statistics: Statistics,
    threats: Sequence[Threat],
    alpha: float,
    estimator: str,
    users: Mapping[str, tuple[str, ...]],
    unbet: Collection[str] = (),
) -> Budget:
    """How alpha is divided for these statistics, by what was drawn and never by what came of it.

    Args:
        statistics: N inputs.
        threats: all that are certified together.
        alpha, estimator, unbet: as `split`.
        users: of tails (`tail_users`).

    Raises:
        ValueError: as `split`.
    """
    looks, proposed, noise = Looks.of(statistics.schedule), statistics.proposed, statistics.charge
    last = alpha if looks is None else looks.level(len(looks), alpha)
    one, other = (split(last, threats, estimator, unbet, users, proposed, divided, noise) for divided in (False, True))
    # Of two classes the other is the rest.
    several = statistics.class_count.shape[1] > 2 and bool(statistics.selection.any())
    return replace(one, divided=other if several else None, looks="" if looks is None else looks.table(alpha))


def _evaluate(
    statistics: Statistics, threats: tuple[Threat, ...], budget: Budget, table: Table, tails: TailTable | None
) -> Evaluation:
    """All but Cohen's radius, by one budget."""
    q = lower_probability(statistics.count.sum(axis=1), statistics.n.sum(axis=1), budget.q)
    sure = q > 0.5
    z = -ndtri(1.0 - np.where(sure, q, 0.5))
    # The largest |y|_2 that q allows, rounded up.
    rim = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) * (1.0 + 1e-12)
    bounds = gradient_bounds(statistics, budget, np.where(sure, q, 0.0), rim)
    scale = statistics.sigma / table.sigma
    own: dict[str, Array] = {}
    for threat in threats:
        found = [np.asarray(table.radius(q, m1, m2), dtype=np.float64) for m1, m2 in threat.queries(bounds, statistics.d)]
        own[threat.name] = np.where(sure, scale * np.max(found, axis=0) / threat.kappa(statistics.d), 0.0)
    if tails is not None and budget.tails:
        first = {name: radius / statistics.sigma for name, radius in own.items()}
        beyond = extended(statistics, threats, first, q, rim, bounds, budget.tails, table, tails)
        own |= {name: np.where(sure, np.maximum(own[name], statistics.sigma * radius), 0.0) for name, radius in beyond.items()}
    if budget.others > 0.0:
        classes = class_bounds(statistics.classes, statistics.class_count, statistics.sigma, budget.q, budget.others)
        own[L2.name] = np.maximum(own[L2.name], classes.radius)
        sure |= classes.radius > 0.0
    radii = {threat.name: own[threat.name] for threat in threats}
    for inner in threats:
        for outer in threats:
            factor = containment(inner, outer, statistics.d)
            radii[inner.name] = np.maximum(radii[inner.name], own[outer.name] / factor)
    inside = {threat.name: containment(threat, L2, statistics.d) for threat in threats}
    return Evaluation(q_lower=q, radius=radii, sure=sure, bounds=bounds, budget=budget, inside=inside)


def _together(made: Sequence[Evaluation], order: npt.NDArray[np.int64]) -> Evaluation:
    """Groups of inputs as one, in this order."""

    def joined(columns: Sequence[Mapping[Any, Array]]) -> dict[Any, Array]:
        return {name: np.concatenate([column[name] for column in columns])[order] for name in columns[0]}

    return Evaluation(
        q_lower=np.concatenate([one.q_lower for one in made])[order],
        radius=joined([one.radius for one in made]),
        sure=np.concatenate([one.sure for one in made])[order],
        bounds=joined([one.bounds for one in made]),
        budget=made[0].budget,
        inside=made[0].inside,
    )


def find_tails(certificate: str) -> TailTable | None:
    """The tail table that a certificate looks up: the shipped one, or none for "first-order". ValueError for another name."""
    if certificate not in CERTIFICATES:
        raise ValueError(f"certificate {certificate!r}: expected one of {', '.join(CERTIFICATES)}")
    return load_tails() if certificate == "tails" else None


def radii(
    statistics: Statistics,
    threats: Sequence[str | Threat] = ("l1", "l2", "linf"),
    alpha: float = 0.001,
    estimator: str = "adaptive",
    table: Table | str | os.PathLike[str] | None = None,
    certificate: str = "tails",
) -> dict[str, Array]:
    """Certified radii from stored statistics: threat -> array of shape (N,) in input units, "l2" and "cohen" always there.

    Raises:
        FileNotFoundError: no table at the path `table`.
        ValueError: alpha, estimator or a threat that is not known; a table that is damaged or bound to another sigma.

    Examples:
        >>> from certlut import radii, read_statistics
        >>> statistics = read_statistics("stats.h5").statistics
        >>> found = radii(statistics, threats=("l1", "linf"), alpha=0.01)
        >>> sorted(found), found["l1"].shape
        (['cohen', 'l1', 'l2', 'linf'], (6,))
    """
    return evaluate(statistics, threats, alpha, estimator, load(table), find_tails(certificate)).radius
