"""The estimators by name."""

from collections.abc import Mapping

from .adaptive import ADAPTIVE
from .estimator import Estimator
from .paper import PAPER

ESTIMATORS: Mapping[str, Estimator] = {estimator.name: estimator for estimator in (ADAPTIVE, PAPER)}


def find_estimator(name: str) -> Estimator:
    """The estimator of that name; ValueError for another."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r}: expected one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]
