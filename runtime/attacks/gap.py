"""How far a certified radius is from the true one: the smallest shift found at which a network's smoothed class changes.

The true radius R* of a threat is at most the size of any shift at which another class has more votes, so R over that size is a
lower bound of the share R / R* of the truth that is certified. Such a shift smaller than R refutes the certificate. (With less than
half of the votes a class may still lead, and be certified: bounds/classes.py.) Directions come from projected gradient descent,
vertices and edges (network.py), the size along one from the probit of the class's share of its own and its rival's votes, nearly
straight in it; what is said of the shift in the end rests on fresh votes alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from scipy.special import ndtri

from ..bounds.binomial import upper_probability
from ..threats.lines import Line, Ray
from ..threats.sets import Threat
from .network import Vote, corners, descend, lowest

# The class has lost where the upper confidence bound of its share is below 1/2 at this level, after either number of fresh votes.
LEVEL, STAGES = 1e-6, (25_000, 100_000)
# What the search aims at: near enough to 1/2, and far enough for those votes to tell.
TARGET = 0.485
# Sizes searched, over the certified radius.
REACH = 32.0
ROUNDS = 2
# Votes for choosing among directions, for coming near the size, and for settling it.
PROBE, COARSE, FINE = 500, 1000, 4000


@dataclass(frozen=True)
class Found:
    """The end of one search."""

    threat: str
    input: int
    radius: float
    """Certified, in input units."""
    vote: float
    """The class's share of fresh votes for it and its rival, at the certified radius in the worst direction found."""
    broken: float
    """The least size found at which its rival has more; inf where none was."""

    @property
    def share(self) -> float:
        """At least this part of the true radius is certified."""
        return self.radius / self.broken

    @property
    def refuted(self) -> bool:
        """A shift inside the certified radius changes the class."""
        return self.broken < self.radius


def find_break(vote: Vote, threat: Threat, radius: float, place: int) -> Found:
    """Search for the smallest shift that changes the class of input `place`, certified at `radius` > 0 (input units)."""
    straight = isinstance(threat, Ray | Line)
    start = torch.zeros_like(vote.center)
    best, least, size = lowest(start, threat), math.inf, radius
    for _ in range(1 if straight else ROUNDS):
        tried = list(corners(vote.gradient(start), threat))
        if straight:
            sizes = [_crossing(vote, v, size, REACH * radius) for v in tried]
            direction, found = tried[sizes.index(min(sizes))], min(sizes)
        else:
            tried.append(
                descend(vote, threat, size, start + 0.1 * size * torch.randn(start.shape, generator=vote.generator)) / size
            )
            shares = [vote.share(size * v, PROBE) for v in tried]
            direction = tried[shares.index(min(shares))]
            found = _crossing(vote, direction, size, REACH * radius)
        if found <= least:
            best, least = direction, found
        size = least if math.isfinite(least) else 4.0 * size
        start = size * best
    least = _settled(vote, best, least)
    at_radius = vote.share(radius * best, FINE)
    # Near the certified radius a shift inside it comes first: no refuted certificate is missed by a hair.
    sizes = [radius * (1.0 - 1e-6)] if radius <= least < 1.05 * radius else []
    return Found(threat.name, place, radius, at_radius, _confirmed(vote, best, [*sizes, *(least * 1.02**k for k in range(6))]))


def _probit(vote: Vote, delta: torch.Tensor, n: int) -> float:
    """Phi^-1 of the share: along a straight line of shifts nearly straight itself, of a half-space's vote quite."""
    return float(ndtri(vote.share(delta, n)))


def _crossing(vote: Vote, direction: torch.Tensor, size: float, reach: float) -> float:
    """About the size at which the share along `direction` comes down to TARGET, searched from `size`; inf beyond `reach`."""
    target = float(ndtri(TARGET))
    low, z_low = 0.0, _probit(vote, 0.0 * direction, COARSE)
    high = size
    while (z_high := _probit(vote, high * direction, COARSE)) > target:
        if high >= reach:
            return math.inf
        # A straight line through the last two, but no leap: where nearly all votes agree it tells little.
        slope = (z_low - z_high) / (high - low)
        step = (z_high - target) / slope if slope > 0.0 else math.inf
        low, z_low, high = high, z_high, min(high + min(max(1.1 * step, 0.05 * high), high), reach)
    for _ in range(2):
        middle = low + min(max(_between(z_low, z_high, target), 0.05), 0.95) * (high - low)
        z = _probit(vote, middle * direction, COARSE)
        if z > target:
            low, z_low = middle, z
        else:
            high, z_high = middle, z
    return low + (high - low) * _between(z_low, z_high, target)


def _between(first: float, last: float, target: float) -> float:
    """Where on the way from `first` down to `last` the target is, as a share of it."""
    return (first - target) / max(first - last, 1e-9)


def _settled(vote: Vote, direction: torch.Tensor, size: float) -> float:
    """`size` brought nearer to where the share is TARGET; its probit taken to be straight from none of the shift to it."""
    if not math.isfinite(size):
        return size
    target, unshifted = float(ndtri(TARGET)), _probit(vote, 0.0 * direction, COARSE)
    for _ in range(2):
        size *= min(max(_between(unshifted, _probit(vote, size * direction, FINE), target), 0.8), 1.25)
    return size


def _confirmed(vote: Vote, direction: torch.Tensor, sizes: Iterable[float]) -> float:
    """The first of the sizes at which fresh votes put a rival before the class; inf where none does."""
    for r in sizes:
        if not math.isfinite(r):
            break
        # Chosen from votes of its own.
        rival = vote.rival(vote.counts(r * direction, COARSE))
        own = other = n = 0
        for stage in STAGES:
            votes, n = vote.counts(r * direction, stage - n), stage
            own, other = own + int(votes[vote.label]), other + int(votes[rival])
            if float(upper_probability(own, own + other, LEVEL / len(STAGES))) < 0.5:
                return r
            if own > other:
                break
    return math.inf
