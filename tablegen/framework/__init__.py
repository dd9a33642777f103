"""The paper's general framework: the worst smoothed vote that any local information allows, and the region it certifies.

`Information` is a list of constraints on E[f psi(t, s)]; `worst_vote` solves equation (2) at one shift, `radius` scans a ray for
the first shift at which the worst vote falls to 1/2, `worst_classifier` is the set that attains it. sigma = 1 throughout.
"""

from .classifier import WorstClassifier, worst_classifier
from .information import (
    Constraint,
    Information,
    Sense,
    bin,
    curvature,
    curvature_across,
    hermite,
    mixed,
    moment,
    slope,
    slope_across,
    tail,
    value,
    vote_at,
)
from .radius import Scan, radius, scan
from .region import region
from .worst import Status, WorstVote, worst_vote

__all__ = [
    "Constraint",
    "Information",
    "Scan",
    "Sense",
    "Status",
    "WorstClassifier",
    "WorstVote",
    "bin",
    "curvature",
    "curvature_across",
    "hermite",
    "mixed",
    "moment",
    "radius",
    "region",
    "scan",
    "slope",
    "slope_across",
    "tail",
    "value",
    "vote_at",
    "worst_classifier",
    "worst_vote",
]
