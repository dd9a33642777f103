"""Certified accuracy at one radius against the samples that it takes: n fixed, and n as a ceiling with targets (docs/looks.md)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bounds.looks import Goal
from ..evaluate import evaluate, find_tails
from ..statistics.file import Sampled
from .study import Study, sampled_at

# Besides the card's n, those of these that are smaller.
CEILINGS = (1000, 3000, 10_000)


@dataclass(frozen=True)
class Spent:
    """(mean samples of an input, part of all inputs that is right and certified), by growing ceilings."""

    title: str
    fixed: tuple[tuple[float, float], ...]
    decided: tuple[tuple[float, float], ...]


def spent(study: Study, out: Path, say: Callable[[str], None]) -> Spent:
    """At the card's sigma of [growth], for a radius of sigma in l2 and in l1 together; statistics are kept like the others."""
    sigma = study.config.growth.sigma
    goal = Goal({"l2": sigma, "l1": sigma})
    points: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for n in _ceilings(study.config.n):
        say(f"accuracy against samples: n = {n:,}")
        for decide in points:
            points[decide].append(_point(sampled_at(study, out, sigma, n, goal if decide else Goal()), goal, study))
    return Spent(f"radius {sigma:g} in l2 and l1", tuple(points[False]), tuple(points[True]))


def _ceilings(n: int) -> Iterator[int]:
    yield from (m for m in CEILINGS if m < n)
    yield n


def _point(sampled: Sampled, goal: Goal, study: Study) -> tuple[float, float]:
    tails = find_tails("tails")
    radius = evaluate(sampled.statistics, study.threats, study.config.alpha, "adaptive", study.table, tails).radius
    reached = sampled.predict == sampled.label
    for name, wanted in goal.targets.items():
        reached &= radius[name] >= wanted
    return float(sampled.statistics.n.sum(axis=1).mean()), float(np.mean(reached))
