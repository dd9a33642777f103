"""Slices of the certified region through the plane of the gradient: exact radii, and what the explorer interpolates.

That is a small copy of the table, and two of the regions of more information: explorer/*.json, by benchmarks/regions.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ..kernels.arrays import Array
from ..kernels.normal import densities
from ..lookup.table import Table

# (q, m1, m2) -> radius, sigma = 1: the exact solver, handed in by the command line.
Exact = Callable[[float, float, float], float]

QS = (0.7, 0.9, 0.99)
SIZES = (0.3, 0.7, 0.98)
ANGLES = 61

# The explorer's grid: z = Phi^-1(q), rho = gradient over the largest, theta = angle from the direction against the gradient.
EXPLORER_Z = np.linspace(np.sqrt(0.05), np.sqrt(3.3), 26) ** 2
EXPLORER_RHO = -np.expm1(-(np.linspace(0.0, np.sqrt(-np.log(0.01)), 21) ** 2))
EXPLORER_THETA = np.linspace(0.0, 180.0, 46)
STEPS = 10_000
# Files of regions of errors in a ball: with its curvature, with tails both ways along the gradient.
MORE = ("curvature", "tails")


@dataclass(frozen=True)
class Slice:
    """The certified region for one (q, gradient), as radii by direction; sigma = 1."""

    q: float
    size: float
    """Gradient as a part of the largest that q allows."""
    theta: Array
    """Angle to the direction against the gradient, 0 to pi, shape (ANGLES,)."""
    radius: Array

    @property
    def z(self) -> float:
        """Phi^-1(q): Cohen's radius, and the distance of the half-space."""
        return float(ndtri(self.q))


def exact_slices(exact: Exact) -> list[Slice]:
    """A slice for every q and gradient size of this module, from the exact solver."""
    out = []
    for q in QS:
        for size in SIZES:
            theta = np.linspace(0.0, np.pi, ANGLES)
            length = size * float(densities(ndtri(q)))
            # sin(pi) is not 0 in floating point, but the slab at m2 = 0 is another, simpler problem.
            m1, m2 = -length * np.cos(theta), np.where((theta == 0) | (theta == np.pi), 0.0, length * np.sin(theta))
            radius = np.array([exact(q, float(a), float(b)) for a, b in zip(m1, m2, strict=True)])
            out.append(Slice(q, size, theta, radius))
    return out


def explorer(table: Table) -> dict[str, Any]:
    """Kind of information -> regions for drawing: `steps` z / r, rounded, with its axes, in the order z, rho, theta.

    "gradient" is a coarse copy of the table; the others are regions of a vote whose errors are a ball, at MORE information.
    """
    z, rho, theta = np.meshgrid(EXPLORER_Z, EXPLORER_RHO, np.radians(EXPLORER_THETA), indexing="ij")
    length = rho * densities(z)
    radius = np.asarray(table.radius(ndtr(z), -length * np.cos(theta), np.abs(length * np.sin(theta)))) / table.sigma
    ratio = np.rint(STEPS * np.minimum(z / np.maximum(radius, 1e-12), 1.0)).astype(int)
    axes = {"z": EXPLORER_Z, "rho": EXPLORER_RHO, "theta": EXPLORER_THETA}
    own: dict[str, Any] = {name: [round(float(x), 6) for x in axis] for name, axis in axes.items()}
    folder = files(__package__) / "explorer"
    more = {kind: json.loads((folder / f"{kind}.json").read_text(encoding="utf-8")) for kind in MORE}
    return {"gradient": own | {"ratio": ratio.ravel().tolist()}, **more, "steps": STEPS, "digest": table.digest[:16]}
