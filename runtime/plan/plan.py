"""How many samples a gain needs: `certlut plan`. A forecast of one model input (forecast.py), not a bound.

For every threat and both estimators, and with tails where it has them: the n at which its radius is expected to beat Cohen's (the
threat's ball inside his l2 ball, at the full alpha) by some per cent, and the gain that endless samples tend to: exact q and norms
in place of their bounds; with tails the gain at n = MOST.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from scipy.special import ndtri

from ..bounds.binomial import least_n, lower_probability
from ..bounds.budget import NO_FAMILIES, check_n, split
from ..bounds.estimators import ESTIMATORS
from ..evaluate import evaluate, find_tails
from ..gains import gain, pair
from ..kernels.arrays import Array
from ..lookup.table import Table
from ..threats.families import users
from ..threats.sets import Ball, Threat, projections
from .forecast import forecast
from .model import gradient

GOALS = (1.0, 5.0, 10.0)
PER_DECADE = 8
MOST = 1e12
TAILS = "adaptive, tails"
# Seven columns within 80 characters.
NARROW: Any = {"box": SIMPLE_HEAD, "pad_edge": False, "show_edge": False, "collapse_padding": True}


@dataclass(frozen=True)
class Row:
    """What one threat gets from one estimator; gains in per cent of Cohen's radius."""

    threat: str
    estimator: str
    samples: tuple[float, ...]
    """For each goal the n that reaches it; inf if the limit stays below, more than MOST where the search ends before."""
    limit: float
    """Gain of endless samples."""
    gain: float | None
    """Gain at the n that was asked for; None if none was, NaN where the input is expected to abstain there."""


@dataclass(frozen=True)
class Plan:
    """All rows, and what they are for."""

    rows: tuple[Row, ...]
    goals: tuple[float, ...]
    least: int
    """Fewer samples than this are expected to abstain."""
    n: int | None

    def table(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title="n that is expected to beat Cohen's radius", title_justify="left", **NARROW)
        goals = [f"by {goal:g} %" for goal in self.goals]
        for heading in ("threat", "estimator", *goals, "n -> inf", *([] if self.n is None else [f"n =\n{self.n:,}"])):
            table.add_column(heading, justify="left" if heading in ("threat", "estimator") else "right", no_wrap=True)
        for row in self.rows:
            cells = [row.threat, row.estimator, *(_samples(n) for n in row.samples), _percent(row.limit)]
            table.add_row(*cells, *([] if row.gain is None else [_percent(row.gain)]))
        return table


def _samples(n: float) -> str:
    if math.isinf(n):
        return "never"
    if n > MOST:
        return f"> {MOST:.0e}".replace("e+", "e")
    rounded = float(f"{n:.2g}")
    return f"{rounded:,.0f}" if n < 1e7 else f"{rounded:.1e}".replace("e+0", "e").replace("e+", "e")


def _percent(gain: float) -> str:
    return "abstains" if math.isnan(gain) else f"{round(gain, 2) + 0.0:+.2f} %"


def plan(
    d: int,
    q: float,
    rho: float,
    alpha: float,
    threats: Sequence[Threat],
    table: Table,
    n: int | None = None,
    n0: int = 100,
    shape: str = "normal",
    goals: Sequence[float] = GOALS,
    cosine: float | None = None,
) -> Plan:
    """Samples that goals need, for balls with p = 1, 2, inf and no basis; "l2" must be among them.

    Args:
        d: numbers of an input.
        q: probability of the class under noise.
        rho: |y|_2 over its maximum phi(Phi^-1(q)).
        alpha: declared for all threats together.
        n: also say the gain at this many samples.
        n0: selection samples.
        shape: of the gradient (model.SHAPES).
        goals: gains in per cent.
        cosine: of a proposed direction with the gradient; None: votes propose.

    Raises:
        ValueError: an argument out of range; a mask of another size than d; an n that cannot reach alpha whatever the votes.
    """
    if n is not None:
        for estimator in ESTIMATORS:
            check_n(n, alpha, threats, estimator)
    for threat in threats:
        if threat.shape is not None and math.prod(threat.shape) != d:
            raise ValueError(f"threat {threat.name!r} has shape {threat.shape}: expected a mask of d = {d} numbers")
    grid = [round(m) for m in np.geomspace(16.0, MOST, 1 + round(PER_DECADE * math.log10(MOST / 16.0)))]
    ns = [*grid, *([] if n is None else [n])]
    statistics = forecast(ns, threats, d, q, rho, n0, shape, table.sigma, cosine)
    by_tails = users(threats, d)
    if n is not None:
        check_n(n, alpha, threats, families=by_tails)
    ends = limits(d, q, rho, threats, table, shape)
    rows = []
    for estimator in (*ESTIMATORS, TAILS):
        with_tails = estimator == TAILS
        tails = find_tails("tails") if with_tails else None
        radius = evaluate(statistics, threats, alpha, "adaptive" if with_tails else estimator, table, tails).radius
        for threat in threats:
            if with_tails and threat.tails(d) is None:
                continue
            gains = gain(*pair(radius, threat, d))
            end = float(gains[len(grid) - 1]) if with_tails else ends[threat.name]
            first = tuple(reached(np.array(grid), gains[: len(grid)], goal, end) for goal in goals)
            at_n = None if n is None else float(gains[-1])
            rows.append(Row(threat=threat.name, estimator=estimator, samples=first, limit=end, gain=at_n))
    order = [threat.name for threat in threats]
    rows.sort(key=lambda row: order.index(row.threat))
    return Plan(tuple(rows), tuple(goals), least(q, alpha, threats, by_tails), n)


def limits(d: int, q: float, rho: float, threats: Sequence[Threat], table: Table, shape: str = "normal") -> dict[str, float]:
    """Gain in per cent over Cohen's radius where q and all norms are known exactly, by threat."""
    z = float(-ndtri(1.0 - q))
    whole = rho * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    parts = {}
    for name, projection in projections(threats).items():
        rank = projection.rank(d)
        parts[name] = gradient(rank, whole * math.sqrt(rank / d), shape)
    out = {}
    for threat in threats:
        bounds = {quantity: np.array([getattr(parts[quantity.part], quantity.norm)]) for quantity in threat.needs()}
        radius = table.radius(np.array([q]), *threat.cut(bounds, d))
        ours = {threat.name: np.asarray(radius) / table.sigma / threat.kappa(d), "cohen": np.array([z])}
        out[threat.name] = float(gain(*pair(ours, threat, d))[0])
    return out


def reached(ns: npt.NDArray[np.int64], gain: Array, goal: float, limit: float) -> float:
    """The first n with this gain, between grid points by a line in log n; inf where even the limit is below."""
    if limit < goal:
        return math.inf
    there = gain >= goal
    if not there.any():
        return 2.0 * MOST
    k = int(np.argmax(there))
    if k == 0 or not np.isfinite(gain[k - 1]):
        return float(ns[k])
    share = (goal - gain[k - 1]) / (gain[k] - gain[k - 1])
    return float(ns[k - 1] * (ns[k] / ns[k - 1]) ** share)


def least(q: float, alpha: float, threats: Sequence[Threat], families: Mapping[str, tuple[str, ...]] = NO_FAMILIES) -> int:
    """The least n at which q n votes prove q > 1/2 at the level that q gets, where these families of tails are used."""
    level = split(alpha, threats, families=families).q
    low, high = least_n(level) - 1, least_n(level)

    def proves(n: int) -> bool:
        return bool(lower_probability(q * n, n, level) > 0.5)

    while not proves(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high


def masked(d: int, coordinates: int, p: float = 2.0) -> Ball:
    """A mask of that many of d coordinates; ValueError where there are not as many."""
    if not 1 <= coordinates < d:
        raise ValueError(f"coordinates = {coordinates}: expected 1 to d - 1 = {d - 1}")
    return Ball("mask", p, np.arange(d) < coordinates)
