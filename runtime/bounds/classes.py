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

from ..kernels.arrays import Array, Counts
from ..statistics.votes import REST
from .binomial import lower_probability, upper_probability

# With three quarters of the selection votes the rest of the classes together are no match.
DECIDED = 0.75
QUANTILE = 1e-14


@dataclass(frozen=True)
class ClassBounds:
    """N inputs, arrays of shape (N,)."""

    runner_up: Counts
    """The other class with the most votes; of several the first column's."""
    count: Counts
    """Its votes."""
    p_lower: Array
    """Lower bound of the class's probability."""
    p_upper: Array
    """Upper bound of every other class's."""
    radius: Array
    """(1), in the units of sigma; 0 where p_lower <= p_upper."""


def undecided(selection: Counts) -> npt.NDArray[np.bool_]:
    """Whether level is worth spending on (1), from the selection votes for the class and their number, shape (N, 2) -> (N,)."""
    return np.asarray(selection[:, 0] < DECIDED * selection[:, 1])


def runner_up(classes: Counts, class_count: Counts) -> tuple[Counts, Counts]:
    """(the other class with the most votes, its votes) from columns as votes.kept_classes has them, the certified one first.

    Both -1 where classes were not counted.
    """
    if not class_count.shape[1]:
        unknown = np.full(len(class_count), REST)
        return unknown, unknown
    # The rest together are no class; none of them has more votes than one that has a column.
    votes = np.where(classes[:, 1:] == REST, -1, class_count[:, 1:])
    place = votes.argmax(axis=1)[:, None]
    return np.take_along_axis(classes[:, 1:], place, axis=1)[:, 0], np.take_along_axis(votes, place, axis=1)[:, 0]


def class_bounds(classes: Counts, class_count: Counts, sigma: float, level: float, level_others: float) -> ClassBounds:
    """Certify the first class of N inputs, chosen before these samples; each holds with probability 1 - level - level_others.

    Args:
        classes: class of each column, shape (N, C), C > 1, as votes.kept_classes has them.
        class_count: votes of each; a row adds up to n.
        sigma: noise level in input units.
        level: of p_lower; the event is that of the bound on q.
        level_others: of p_upper.
    """
    n, (other, count) = class_count.sum(axis=1), runner_up(classes, class_count)
    low = lower_probability(class_count[:, 0], n, level)
    high = np.minimum(upper_probability(count, n, level_others), np.nextafter(1.0 - low, 1.0))
    return ClassBounds(other, count, low, high, two_class_radius(low, high, sigma))


def two_class_radius(low: Array, high: Array, sigma: float) -> Array:
    """(1), rounded down, from p_lower and p_upper in [0, 1]; 0 where p_lower <= p_upper."""
    sure = low > high
    a, b = _quantile(np.where(sure, low, 0.5)), _quantile(np.where(sure, high, 0.5))
    gap = a - b - QUANTILE * (np.abs(a) + np.abs(b))
    return np.asarray(np.where(sure, np.maximum(0.5 * sigma * gap * (1.0 - 1e-15), 0.0), 0.0))


def _quantile(p: Array) -> Array:
    """Phi^-1, accurate at both ends."""
    return np.asarray(np.where(p > 0.5, -ndtri(1.0 - p), ndtri(p)))
