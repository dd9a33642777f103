"""The l2 radius from the two leading classes (Cohen et al. 2019, Theorem 1), for a class that may have less than half of the votes.

With p = P(class A) >= p_lower and P(class B) <= p_upper for every other class B, the smoothed class around x is A within

    R = sigma (Phi^-1(p_lower) - Phi^-1(p_upper)) / 2.                                                                       (1)

p_upper needs no union over classes. The largest of the other classes' probabilities belongs to one class, fixed once A is; its
votes are at most the runner-up's, and the Clopper-Pearson bound does not fall as votes are added: so the runner-up's bound at level
a is above all of them but with probability a. Nor can a class have more than 1 - p_lower, on the event that p_lower rests on:
where A has the majority, (1) is at least the radius sigma Phi^-1(p_lower) of A against the rest.

Rounding: both probabilities are rounded outward (binomial.py); the quantiles are good to QUANTILE, relatively.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from .binomial import lower_probability, upper_probability

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# With three quarters of the selection votes the rest of the classes together are no match.
DECIDED = 0.75
QUANTILE = 1e-14


@dataclass(frozen=True)
class Classes:
    """N inputs, arrays of shape (N,)."""

    runner_up: Counts
    """The other class with the most votes; of several the first."""
    count: Counts
    """Its votes."""
    p_lower: Array
    """Lower bound of the class's probability."""
    p_upper: Array
    """Upper bound of every other class's."""
    radius: Array
    """(1), in the units of sigma; 0 where p_lower <= p_upper."""


def undecided(votes: Counts) -> npt.NDArray[np.bool_]:
    """Whether level is worth spending on (1), from the selection votes, shape (N, classes) -> (N,)."""
    return np.asarray(votes.max(axis=1) < DECIDED * votes.sum(axis=1))


def runner_up(counts: Counts, label: Counts) -> tuple[Counts, Counts]:
    """(the other class with the most votes, its votes) from counts of shape (N, classes), 2 classes or more."""
    others = counts.copy()
    np.put_along_axis(others, label[:, None], -1, axis=1)
    return others.argmax(axis=1), others.max(axis=1)


def classes(counts: Counts, label: Counts, sigma: float, level: float, level_others: float) -> Classes:
    """Certify the class `label` of N inputs; each result holds with probability 1 - level - level_others.

    Args:
        counts: votes of the fresh samples, shape (N, classes); all classes, so that a row adds up to n.
        label: class of each input, chosen before these samples, shape (N,).
        sigma: noise level in input units.
        level: of p_lower; the event is that of the bound on q.
        level_others: of p_upper.
    """
    n, own = counts.sum(axis=1), np.take_along_axis(counts, label[:, None], axis=1)[:, 0]
    other, count = runner_up(counts, label)
    low = lower_probability(own, n, level)
    high = np.minimum(upper_probability(count, n, level_others), np.nextafter(1.0 - low, 1.0))
    return Classes(other, count, low, high, two_class_radius(low, high, sigma))


def two_class_radius(low: Array, high: Array, sigma: float) -> Array:
    """(1), rounded down, from p_lower and p_upper in [0, 1]; 0 where p_lower <= p_upper."""
    sure = low > high
    a, b = _quantile(np.where(sure, low, 0.5)), _quantile(np.where(sure, high, 0.5))
    gap = a - b - QUANTILE * (np.abs(a) + np.abs(b))
    return np.asarray(np.where(sure, np.maximum(0.5 * sigma * gap * (1.0 - 1e-15), 0.0), 0.0))


def _quantile(p: Array) -> Array:
    """Phi^-1, accurate at both ends."""
    return np.asarray(np.where(p > 0.5, -ndtri(1.0 - p), ndtri(p)))
