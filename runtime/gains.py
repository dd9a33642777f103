"""Average certified radius, the pair that is compared and the gain over Cohen's: each defined once. NumPy only."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .kernels.arrays import Array
from .threats.sets import L2, Threat, containment

# Threat -> radii of N inputs in input units, "cohen" among them: his in l2.
Radii = Mapping[str, Array]


def pair(radii: Radii, threat: Threat, d: int) -> tuple[Array, Array]:
    """(ours, Cohen's) for one threat, shape (N,), inputs of d coordinates."""
    return radii[threat.name], radii["cohen"] / containment(threat, L2, d)


def average(radius: Array) -> float:
    """Average certified radius (ACR)."""
    return float(np.mean(radius))


def gain(ours: npt.ArrayLike, cohen: npt.ArrayLike) -> Array:
    """By how much ours is above Cohen's, in percent of his, of any shape; NaN where he certifies nothing."""
    ours, cohen = np.asarray(ours, dtype=np.float64), np.asarray(cohen, dtype=np.float64)
    return np.asarray(100.0 * (ours / np.where(cohen > 0.0, cohen, np.nan) - 1.0))
