"""What is compared, and how: methods, average certified radius, gain over Cohen's, the same for tables, figures and forecasts.

A wrong or abstaining input has radius 0, each method by its own certificate: Cohen's has all of alpha to itself, so that his may
stand where ours abstains. Of another threat he certifies the largest ball inside his l2 ball.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..bounds.estimators import find_estimator
from ..evaluate import evaluate, find_tails
from ..gains import Radii
from ..kernels.arrays import Mask
from ..lookup.table import Table
from ..lookup.tails import TailTable
from ..statistics.summary import Statistics
from ..threats.sets import Threat, projections

# Method -> (estimator, certificate), in the order in which they are shown; the last one is shown as ours.
METHODS = {"paper": ("paper", "first-order"), "first order": ("adaptive", "first-order"), "tails": ("adaptive", "tails")}
OURS = "tails"
NAME = {"cohen": "Cohen", "paper": "first order, paper's estimator", "first order": "first order", "tails": "with tails"}


def certified(
    statistics: Statistics, threats: Sequence[Threat], alpha: float, methods: Sequence[str], table: Table
) -> Iterator[tuple[str, Radii]]:
    """Every method's name and radii, from the same statistics; without the threats that its estimator has no bound for."""
    tables: dict[str, TailTable | None] = {name: find_tails(name) for name in {METHODS[method][1] for method in methods}}
    for method in methods:
        estimator, certificate = METHODS[method]
        known = [threat for threat in threats if has_bounds(estimator, threat)]
        yield method, evaluate(statistics, known, alpha, estimator, table, tables[certificate]).radius


def has_bounds(estimator: str, threat: Threat) -> bool:
    """Whether the estimator bounds everything that the threat needs."""
    parts, by = projections([threat]), find_estimator(estimator)
    return all(by.events(quantity, parts[quantity.part]) is not None for quantity in threat.needs())


def counted(radii: Radii, right: Mask) -> Radii:
    """The radii of `evaluate`, 0 also where the input is not `right`: the class chosen from the selection samples is not its label.

    A method has no radius where it abstains, and the class is known there too: ours and Cohen's each keep their own inputs.
    """
    return {name: np.where(right, radius, 0.0) for name, radius in radii.items()}
