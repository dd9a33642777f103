"""When an input needs no more samples: its targets are reached, or will not be, or more would add too little.

What is certified at a look comes from `evaluate`, at that look's level. All else here is a guess that costs samples or, where it
gives up too early, a certificate; never validity (bounds/looks.py). The guess is the planner's (forecast.py): a half-space seen
through noise with

- q as large as its upper confidence bound;
- |y|_2 / phi(z) within DEVIATIONS of what the inner product of the half means says, or any where that says nothing.

An input is futile where no such half-space is expected to reach, with all n samples, any target that is not reached yet; nor, where
selection votes are divided, its two leading classes as far apart as their bounds allow. Real inputs differ from half-spaces by a
factor that is much the same at all n: from TRUSTED samples on, what is certified so far is expected to grow by no more than the
half-space's radius does, from q as it is likely now to q as large as it may be then.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ..bounds.binomial import lower_probability, upper_probability
from ..bounds.classes import runner_up, undecided
from ..bounds.looks import Goal, Looks, Verdict, hopeless
from ..evaluate import evaluate
from ..kernels.arrays import Array
from ..lookup.table import Table
from ..lookup.tails import TailTable
from ..sampling.card import Sampling
from ..sampling.stakes import vote_square
from ..statistics.summary import Statistics
from ..threats.sets import ALL, L2, Threat, containment, projections
from .forecast import forecast

# Results are rounded down to six decimals: a target is reached where what is printed reaches it.
PRINTED = 1e-6
# Level of the upper bound of q, and deviations of |y|^2, that the guess allows for.
UNLIKELY, DEVIATIONS = 0.005, 2.0
# Forecasts are made on a grid and read off it: z by lines, the length by the nearest points on both sides.
Z_STEP, Z_MOST = 0.2, 5.0
LENGTHS = (0.0, 0.4, 0.7, 0.9, 1.0)
# Samples, and the part of a target, from which on a certified radius says how it will grow.
TRUSTED, HALFWAY = 2000, 0.5
# What the model's gradient is expected to propose.
COSINE = 0.97


@dataclass(frozen=True)
class Method:
    """How radii are made of statistics."""

    threats: tuple[Threat, ...]
    alpha: float
    estimator: str
    table: Table
    tails: TailTable | None

    def radii(self, statistics: Statistics) -> dict[str, Array]:
        """Threat -> radius in input units, shape (N,)."""
        return evaluate(statistics, self.threats, self.alpha, self.estimator, self.table, self.tails).radius

    def settings(self) -> dict[str, Any]:
        """What decides, as files hold it."""
        return {"estimator": self.estimator, "table": self.table.digest, "tails": None if self.tails is None else self.tails.digest}


class Stopping:
    """A rule of bounds/looks.py.

    Args:
        goal: at least a target or a precision.
        looks: the schedule.
        method: what certifies; all its threats' radii are reported, those of the goal decide.
        d: numbers of an input.
        sigma: in input units.
        n0: selection samples.
        cosine: of a proposed direction with the gradient (forecast.py); None: votes propose.
    """

    def __init__(
        self, goal: Goal, looks: Looks, method: Method, d: int, sigma: float, n0: int = 100, cosine: float | None = None
    ) -> None:
        self.goal, self.looks, self.method = goal, looks, method
        self._d, self._n0, self._cosine = d, n0, cosine
        self._scale = sigma / method.table.sigma
        wanted = [threat for threat in method.threats if threat.name in goal.targets or not goal.targets]
        self._planned = replace(method, threats=tuple(threat for threat in wanted if _plannable(threat)))
        self._known: dict[tuple[int, float, int], dict[str, float]] = {}

    def by_votes(self, count: int, look: int, divided: bool) -> Verdict | None:
        """Nothing but a certain abstention."""
        sure = not divided and hopeless(self.looks, count, look, self.method.alpha)
        return Verdict.FUTILE if sure else None

    def by_statistics(self, statistics: Statistics, look: int) -> list[Verdict]:
        """For all inputs at once what is certified, one by one what is expected."""
        found = self.method.radii(statistics)
        return [
            self._verdict(statistics, {name: radius[i] for name, radius in found.items()}, i, look) for i in range(len(statistics))
        ]

    def expected_samples(self, q: float, length: float, paths: int = 400) -> tuple[float, float, float]:
        """(mean, median, part certified) of inputs (q, length) with simulated votes, for a goal with targets."""
        rng, sizes = np.random.default_rng(0), np.array(self.looks.sizes)
        votes = rng.binomial(np.diff(sizes, prepend=0), q, size=(paths, len(sizes))).cumsum(axis=1)
        drawn, certified = np.full(paths, sizes[-1]), np.zeros(paths, dtype=bool)
        for path, counts in enumerate(votes.tolist()):
            for look, (count, n) in enumerate(zip(counts, self.looks.sizes, strict=True), 1):
                likely, most = _likely(count, n)
                left = [name for name in self.goal.targets if not self._reaches(name, likely, length, look)]
                certified[path] = not left
                if not any(self._reaches(name, most, length) for name in left):
                    drawn[path] = n
                    break
        return float(drawn.mean()), float(np.median(drawn)), float(certified.mean())

    def _verdict(self, statistics: Statistics, found: Mapping[str, float], i: int, look: int) -> Verdict:
        left = [name for name, radius in self.goal.targets.items() if found[name] < radius + PRINTED]
        if self.goal.targets and not left:
            return Verdict.CERTIFIED
        if look == len(self.looks):
            return Verdict.GO_ON
        likely, most = _likely(int(statistics.count[i].sum()), int(statistics.n[i].sum()))
        lengths = _lengths(statistics, i, likely)
        if left:
            apart = self._apart(statistics, i)
            if not any(self._may_reach(name, found[name], (likely, most), lengths, apart, look) for name in left):
                return Verdict.FUTILE
        if self.goal.precision is not None and self._gain(likely, most, lengths, look) < self.goal.precision:
            return Verdict.PRECISE
        return Verdict.GO_ON

    def _reaches(self, name: str, q: float, length: float, look: int = 0) -> bool:
        """Whether such a half-space is expected to reach a target, at a look or the last; what cannot be planned may be."""
        expected = self._expected(q, length, look or len(self.looks))
        return name not in expected or expected[name] >= self.goal.targets[name]

    def _may_reach(
        self, name: str, radius: float, q: tuple[float, float], lengths: Sequence[float], apart: float, look: int
    ) -> bool:
        """Whether all samples may certify a target, of which `radius` is certified, at q from likely to most."""
        likely, most = q
        if self.looks.sizes[look - 1] >= TRUSTED and radius >= HALFWAY * self.goal.targets[name]:
            middle = lengths[len(lengths) // 2]
            now, then = (self._expected(q, middle, at).get(name, 0.0) for q, at in ((likely, look), (most, len(self.looks))))
            if now > 0.0:
                return radius * then >= self.goal.targets[name] * now
        return self._within(name, apart) or any(self._reaches(name, most, length) for length in lengths)

    def _within(self, name: str, apart: float) -> bool:
        """Whether an l2 ball of radius `apart` holds a target."""
        return any(apart >= self.goal.targets[name] * containment(t, L2, self._d) for t in self.method.threats if t.name == name)

    def _apart(self, statistics: Statistics, i: int) -> float:
        """The largest l2 radius that the two leading classes may have (classes.py); 0 where they are not asked."""
        if statistics.class_count.shape[1] < 3 or not undecided(statistics.selection[i : i + 1])[0]:
            return 0.0
        _, second = runner_up(statistics.classes[i : i + 1], statistics.class_count[i : i + 1])
        count, n = statistics.count[i].sum(), statistics.n[i].sum()
        high, low = upper_probability(count, n, UNLIKELY), lower_probability(second[0], n, UNLIKELY)
        return 0.5 * statistics.sigma * float(ndtri(high) - ndtri(low))

    def _gain(self, likely: float, most: float, lengths: Sequence[float], look: int) -> float:
        """The largest part of a radius that n samples are expected to add; inf where they may give one and there is none yet."""
        gains = [0.0]
        for length in lengths:
            last = len(self.looks)
            then, best = (self._expected(q, length, last) for q in (likely, most))
            for name, radius in self._expected(likely, length, look).items():
                if radius > 0.0:
                    gains.append(then[name] / radius - 1.0)
                elif best[name] > 0.0:
                    gains.append(np.inf)
        return max(gains)

    def _expected(self, q: float, length: float, look: int) -> dict[str, float]:
        """Threat -> radius expected at a look, by a line in z between two points of the grid; nothing for q <= 1/2."""
        z = float(np.clip(ndtri(q), 0.0, Z_MOST - 1e-9)) / Z_STEP
        low, share = int(z), z - int(z)
        below, above = (self._cell(place, length, look) for place in (low, low + 1))
        return {name: (1.0 - share) * below[name] + share * above[name] for name in above}

    def _cell(self, place: int, length: float, look: int) -> dict[str, float]:
        threats = self._planned.threats
        if place == 0 or not threats:
            return {threat.name: 0.0 for threat in threats}
        if (place, length, look) not in self._known:
            q, n = float(ndtr(place * Z_STEP)), self.looks.sizes[look - 1]
            expected = forecast([n], threats, self._d, q, length, self._n0, sigma=self.method.table.sigma, cosine=self._cosine)
            radii = self._planned.radii(replace(expected, looks=np.array([look]), schedule=self.looks.describe()))
            self._known[place, length, look] = {threat.name: self._scale * float(radii[threat.name][0]) for threat in threats}
        return self._known[place, length, look]


def rules_of(card: Sampling, method: Method | None, sigma: float) -> Callable[[int], Stopping] | None:
    """Numbers of an input -> the rule for the card's goal; None without a goal. ValueError for a goal without a method."""
    schedule = card.schedule
    if not card.goal or schedule is None:
        return None
    if method is None:
        raise ValueError("a goal was set: expected what decides that it is reached")
    cosine = None if card.proposal == "votes" else COSINE
    return functools.cache(lambda d: Stopping(card.goal, schedule, method, d, sigma, card.n0, cosine))


def targeted(
    targets: Mapping[str, float], looks: Looks, method: Method, d: int, q: float, length: float, n0: int, cosine: float | None
) -> str:
    """In two lines, how many samples inputs like (q, length) are expected to need for these radii, sigma = 1.

    Raises:
        ValueError: a target of no threat.
    """
    goal = Goal(targets)
    goal.check([threat.name for threat in method.threats])
    rule = Stopping(goal, looks, method, d, method.table.sigma, n0, cosine)
    mean, median, certified = rule.expected_samples(q, length)
    asked = ", ".join(f"{name}={radius:g}" for name, radius in targets.items())
    return (
        f"{asked} at up to {looks.n:,} samples, {len(looks)} looks; a forecast, not a bound\n"
        f"samples of an input: {mean:,.0f} on average, median {median:,.0f}; certified: {100.0 * certified:.0f} %"
    )


def _likely(count: int, n: int) -> tuple[float, float]:
    """(q as it is likely, q as large as it may be)."""
    return (count + 0.5) / (n + 1.0), float(upper_probability(count, n, UNLIKELY))


def _plannable(threat: Threat) -> bool:
    """Whether `forecast` knows it."""
    parts = projections([threat]).values()
    return threat.kind == "ball" and all(part.keeps_coordinates and not part.largest and part.dual == 2.0 for part in parts)


def _lengths(statistics: Statistics, i: int, q: float) -> list[float]:
    """Points of the grid around what |y|_2 / phi(z) may be."""
    part, (n1, n2) = statistics.parts[ALL], statistics.n[i]
    z = float(ndtri(max(q, 0.5)))
    rim = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    square, noise = float(part.inner_b[i]), float(vote_square(statistics.b[i], 1.0 - q))
    across = np.sqrt(statistics.d * noise**2 / (n1 * n2))
    along = np.sqrt(max(square, 0.0) * noise * (1.0 / n1 + 1.0 / n2))
    spread = DEVIATIONS * (across + along)
    low, high = (np.sqrt(np.clip((square + sign * spread) / rim**2, 0.0, 1.0)) for sign in (-1.0, 1.0))
    inside = [place for place, length in enumerate(LENGTHS) if low <= length <= high]
    first = max((place for place, length in enumerate(LENGTHS) if length <= low), default=0)
    last = min((place for place, length in enumerate(LENGTHS) if length >= high), default=len(LENGTHS) - 1)
    return [LENGTHS[place] for place in sorted({first, *inside, last})]
