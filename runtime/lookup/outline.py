"""A threat's outline against a table's angles: chords that its unit ball stays below, in the basis of their sector's two rays.

The shifts (a, b) of a ball of size 1 form a star-shaped region below b = beta(a) (kernels/covering.py). In a sector between two
rays with unit vectors e0 and e1 a point is X e0 + Y e1, and lies below the line from rho0 e0 to rho1 e1 if X/rho0 + Y/rho1 <= 1.
The boundary is cut where it has corners and every few degrees. A piece is replaced by the chord of its ends, pushed out until it
clears the piece: on STEPS parts of the piece's angle the boundary's furthest point is compared with the chord's nearest.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array
from ..kernels.covering import Covering, furthest_within, reach

Indices = npt.NDArray[np.int64]
Outline = tuple[Array, Indices]

STEPS = 96
# Radians: the longest piece.
LONGEST = math.radians(1.5)
UP = 1.0 + 1e-12
# A ball with this many corners beyond an angle is not cut at them: its pieces are short enough.
CORNERS = 64


def _cuts(low: float, high: float, covering: Covering) -> Array:
    """Where the outline is cut from angle `low` to `high`."""
    high = min(high, covering.last)
    count = max(1, math.ceil((high - low) / LONGEST * (1.0 - 1e-9)))
    cuts = np.linspace(low, high, count + 1)
    if covering.p < 2.0:
        corners = np.arctan(np.sqrt(np.arange(1.0, min(covering.w, CORNERS) + 1.0)))
        cuts = np.concatenate([cuts, corners[(corners > low) & (corners < high)]])
    return np.unique(cuts)


def _piece(start: float, stop: float, low: float, high: float, covering: Covering) -> list[float]:
    """furthest, X1, Y1, X2, Y2 of the piece between two angles in the sector from `low` to `high`."""
    ends = [reach(angle, covering.p, covering.w) for angle in (start, stop)]
    angles = np.linspace(start, stop, STEPS + 1)
    furthest = np.array([furthest_within(*pair, covering.p, covering.w) for pair in itertools.pairwise(angles)])
    # 1/r on the chord is the sum of two sines, concave in the angle: on a part of it, at most this much above its ends' larger one.
    inverse = np.sin(stop - angles) / ends[0] + np.sin(angles - start) / ends[1]
    inverse /= math.sin(stop - start)
    largest = np.maximum(inverse[1:], inverse[:-1]) / math.cos(0.5 * (stop - start) / STEPS)
    out = max(1.0, float((furthest * largest).max())) * UP
    row = [float(furthest.max()) * UP]
    for angle, end in zip((start, stop), ends, strict=True):
        row += [end * out * math.sin(turn) / math.sin(high - low) for turn in (high - angle, angle - low)]
    return row


def outline(covering: Covering, angles: Array) -> Outline:
    """(pieces, starts) of a threat: the rows `tail_radii` takes; angles in radians, from 0 up."""
    rows: list[list[float]] = []
    starts = [0, 0]
    for low, high in itertools.pairwise(angles.tolist()):
        if low < covering.last:
            cuts = _cuts(low, high, covering).tolist()
            rows += [_piece(start, stop, low, high, covering) for start, stop in itertools.pairwise(cuts)]
        starts.append(len(rows))
    if (top := float(angles[-1])) < covering.last:
        rows.append([furthest_within(top, covering.last, covering.p, covering.w) * UP, *[math.nan] * 4])
    starts.append(len(rows))
    return np.array(rows).reshape(-1, 5), np.array(starts, np.int64)


def stacked(parts: Sequence[Outline]) -> Outline:
    """Several threats' outlines as one, starts of shape (T, I + 2)."""
    offsets = np.cumsum([0, *(len(pieces) for pieces, _ in parts)])
    starts = np.stack([starts + offset for (_, starts), offset in zip(parts, offsets, strict=False)])
    return np.concatenate([pieces for pieces, _ in parts]), starts
