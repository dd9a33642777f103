"""Offline half: the exact dual certificate, and tables of it (build, prove)."""

from .build import build, stamp
from .grid import Axis, GridSpec
from .node import Status
from .prove import prove
from .solve import Solution, radius, solve

__all__ = ["Axis", "GridSpec", "Solution", "Status", "build", "prove", "radius", "solve", "stamp"]
