"""Sampling in looks: how many samples an input has at each, and what part of alpha each may spend.

At look k the first n_k samples are taken for all there are, as in a run with n = n_k, and everything that is bounded (the vote, the
gradient, the tails) is bounded from them with the levels of share_k alpha. The n_k and share_k are fixed beforehand, and

    P(some bound fails at some look) <= sum over k of share_k alpha <= alpha.

Except with that probability all bounds hold at all looks, so they hold together at the look T where sampling stops, whatever made
it stop: T may depend on all that was drawn, on other inputs, on a forecast, on a person.

A look of share 0 certifies nothing, at any alpha: sampling may only be given up there.

Most of alpha is kept for the last look, which a certificate that needs all n samples rests on: (1 - LAST) alpha costs it
log(1 / LAST) in the logarithm of a level. An anytime bound of the vote alone (a mixture of bets, one process for all n) would cost
its last look log(n) / 2 and more: benchmarks/looks.py has both.
"""

import enum
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..kernels.arrays import Counts
from ..statistics.summary import Statistics
from .binomial import lower_probability

COUNT, FIRST = 8, 500
# The last look's share of alpha.
LAST = 0.8
# Looks of a run that only gives up what is certain to abstain.
GIVING_UP = 32
# The rounded shares add up to less than 1.
BELOW = 1.0 - 1e-12


@dataclass(frozen=True)
class Looks:
    """A schedule. ValueError for one that is none."""

    sizes: tuple[int, ...]
    """Samples drawn by the end of each look, increasing; the last is n."""
    shares: tuple[float, ...]
    """Of alpha, what each look spends; at most 1 in all."""

    def __post_init__(self) -> None:
        if any(a >= b for a, b in itertools.pairwise((1, *self.sizes))) or len(self.sizes) != len(self.shares):
            raise ValueError(f"looks at {self.sizes}, shares {self.shares}: expected increasing sizes from 2, and a share for each")
        if not self.sizes or min(self.shares) < 0.0 or self.shares[-1] <= 0.0 or sum(self.shares) > 1.0:
            raise ValueError(f"looks with shares {self.shares}: expected numbers from 0, the last above it, at most 1 in all")

    @classmethod
    def geometric(cls, n: int, count: int = COUNT, first: int = FIRST) -> "Looks":
        """`count` looks from `first` to n; those before the last share what it leaves."""
        if n <= first or count < 2:
            return cls((n,), (1.0,))
        sizes = tuple(sorted({round(size) for size in np.geomspace(first, n, count)}))
        early = len(sizes) - 1
        return cls(sizes, (*[(1.0 - LAST) / early * BELOW] * early, LAST * BELOW))

    @classmethod
    def giving_up(cls, n: int) -> "Looks":
        """Evenly spaced looks that spend nothing: all of alpha is the last one's."""
        sizes = tuple(sorted({max(2, n * k // GIVING_UP) for k in range(1, GIVING_UP + 1)}))
        return cls(sizes, (*[0.0] * (len(sizes) - 1), 1.0))

    @property
    def n(self) -> int:
        """Samples of an input that is never stopped."""
        return self.sizes[-1]

    def __len__(self) -> int:
        return len(self.sizes)

    def level(self, look: int, alpha: float) -> float:
        """What look 1, 2, ... may spend."""
        return self.shares[look - 1] * alpha

    def describe(self) -> dict[str, Any]:
        """As files hold it."""
        return {"sizes": list(self.sizes), "shares": list(self.shares)}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Looks | None":
        """The inverse of `describe`; None for nothing."""
        if not described:
            return None
        return cls(tuple(map(int, described["sizes"])), tuple(map(float, described["shares"])))

    def check(self, looks: Counts, n: Counts) -> None:
        """ValueError unless inputs that have passed so many looks have n samples, shapes (N,)."""
        if ((looks < 1) | (looks > len(self))).any() or (np.array(self.sizes)[looks - 1] != n).any():
            raise ValueError(f"statistics: expected 1 to {len(self)} looks, and the samples of the last one passed, {self.sizes}")

    def table(self, alpha: float) -> str:
        """A line for each look."""
        lines = [f"{self.level(k, alpha):<9.3g} look {k}, at {size} samples" for k, size in enumerate(self.sizes, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Goal:
    """What is asked of every input; nothing: n samples are."""

    targets: Mapping[str, float] = field(default_factory=dict)
    """Threat -> the radius to be certified, in input units."""
    precision: float | None = None
    """Or: stop where all further samples are not expected to add this part of any radius."""

    def __post_init__(self) -> None:
        for name, radius in self.targets.items():
            if not 0.0 < radius < math.inf:
                raise ValueError(f"target {name} = {radius}: expected a positive radius, in input units")
        if self.precision is not None and not 0.0 < self.precision < 1.0:
            raise ValueError(f"precision = {self.precision}: expected a part of the radius, above 0 and below 1")

    def __bool__(self) -> bool:
        return bool(self.targets) or self.precision is not None

    def check(self, names: Sequence[str]) -> None:
        """ValueError for a target of no threat."""
        if unknown := [name for name in self.targets if name not in names]:
            raise ValueError(f"target {unknown[0]}: expected one of the threats, {', '.join(names)}")


class Verdict(enum.Enum):
    """What a rule says of an input at a look."""

    GO_ON = "n reached"
    """Draw more; at the last look there is no more."""
    CERTIFIED = "certified"
    """Every target is reached."""
    FUTILE = "futile"
    """What is not reached of the targets is out of reach, surely or by a forecast."""
    PRECISE = "precise"
    """More samples are not expected to add enough."""


class Rule(Protocol):
    """When to stop an input. It may look at everything: no bound rests on it."""

    @property
    def looks(self) -> Looks:
        """When to ask it."""

    def by_votes(self, count: int, look: int, divided: bool) -> Verdict | None:
        """Of one input with `count` votes for the class by look 1, 2, ...; None: statistics are needed to tell.

        `divided`: it may be certified with fewer than half of the votes (classes.py).
        """

    def by_statistics(self, statistics: Statistics, look: int) -> list[Verdict]:
        """Of N inputs that are at the same look."""


@dataclass(frozen=True)
class GivingUp:
    """The rule that stops an input only where its abstention is certain."""

    looks: Looks
    alpha: float

    def by_votes(self, count: int, look: int, divided: bool) -> Verdict | None:
        """Votes tell all."""
        return Verdict.FUTILE if not divided and hopeless(self.looks, count, look, self.alpha) else Verdict.GO_ON

    def by_statistics(self, statistics: Statistics, look: int) -> list[Verdict]:
        """Nothing more."""
        return [Verdict.GO_ON] * len(statistics)


def hopeless(looks: Looks, count: int, look: int, alpha: float) -> bool:
    """Whether no votes for the class that are still to come could prove q > 1/2, at any later look and at most at level alpha.

    Clopper-Pearson's bound grows with votes for and with the level: the last look has the most votes, and no look more than this.
    """
    best, n = count + looks.n - looks.sizes[look - 1], looks.n
    return bool(lower_probability(np.array(best), np.array(n), max(looks.shares) * alpha) <= 0.5)
