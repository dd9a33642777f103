"""What an estimator of the gradient's norms answers: the events that a bound rests on, and the bound."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from ..kernels.arrays import Array
from ..statistics.summary import Statistics
from ..threats.projections import Projection
from ..threats.sets import Quantity

# Event -> its share of the bound's level; the shares of a bound add up to 1.
Events = Mapping[str, float]


class Estimator(ABC):
    """A way to bound norms of the gradient from statistics."""

    name: ClassVar[str]

    @abstractmethod
    def events(self, quantity: Quantity, projection: Projection, bets: bool = True, proposed: bool = False) -> Events | None:
        """The events behind a bound; None where the estimator has no such bound.

        Args:
            quantity: what is bounded.
            projection: how its part of the gradient is taken.
            bets: whether bets were made on that part while sampling.
            proposed: whether they went by the model's gradient (`Statistics.proposed`).
        """

    def leads(self, quantity: Quantity, statistics: Statistics, levels: Mapping[Quantity, float]) -> Iterator[tuple[Array, int]]:
        """(a, k): w.y >= a, shape (N,), along the k-th w of `Part.reach`, on events that bounds at these levels rest on.

        `quantity` is to be bounded from above; the levels are of all bounds that its threats use. w may depend on the samples.
        """
        yield from ()

    @abstractmethod
    def bound(self, quantity: Quantity, statistics: Statistics, q: Array, level: float) -> Array:
        """One bound of N inputs, shape (N,): it holds where `q` does, beyond that with probability 1 - level.

        Args:
            quantity: what is bounded.
            statistics: N inputs.
            q: lower bound of the class's probability from the same samples, shape (N,).
            level: probability that the bound is wrong.

        Raises:
            ValueError: a norm that it has no bound of.
        """
