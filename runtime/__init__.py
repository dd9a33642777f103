"""Online half: sample a smoothed classifier, look up certified radii. Importing this does not import torch."""

from .certify import ABSTAIN, Certificate, Certifier
from .evaluate import radii
from .smooth import Smooth
from .table import Table, UnprovenTable, load
from .threats import Direction, Lp, Subspace

__all__ = [
    "ABSTAIN",
    "Certificate",
    "Certifier",
    "Direction",
    "Lp",
    "Smooth",
    "Subspace",
    "Table",
    "UnprovenTable",
    "load",
    "radii",
]
