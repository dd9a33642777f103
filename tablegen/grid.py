"""Where the nodes are: axes z = Phi^-1(q), rho = |m| / phi(z), theta = angle of (-m1, m2); presets; the card and its hash."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from certlut.kernels.arrays import Array
from certlut.lookup.format import LIMITS, check_axis

# The spacing "across": its share of steps below 90 degrees (of 61 there, a knot falls on 90), and where they begin to widen.
BELOW, NARROW = 50 / 61, 9.0

# Each spacing is uniform in a transform of the coordinate: (forward, inverse).
_SPACINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "linear": (lambda x: x, lambda x: x),
    "sqrt": (np.sqrt, np.square),
    # Stretched toward the rim rho = 1, where the radius and its slopes diverge.
    "rim": (lambda x: np.sqrt(-np.log1p(-x)), lambda x: -np.expm1(-np.square(x))),
    # The same with more of the knots next to the rim, where gradients of real votes are.
    "rim.7": (lambda x: (-np.log1p(-x)) ** 0.7, lambda x: -np.expm1(-(x ** (1.0 / 0.7)))),
    # Degrees 0 to 180, three quarters of the way for 0 to 90, dense on both sides of 90, where the radius bends most.
    "fan": (
        lambda x: np.where(
            x <= 90.0,
            1.5 / np.pi * np.arcsin(np.minimum(x, 90.0) / 90.0),
            0.75 + 0.5 / np.pi * np.arccos(np.clip(2.0 - x / 90.0, 0.0, 1.0)),
        ),
        lambda x: np.where(
            x <= 0.75, 90.0 * np.sin(np.minimum(x, 0.75) * np.pi / 1.5), 180.0 - 90.0 * np.cos((x - 0.75) * np.pi / 0.5)
        ),
    ),
    # Degrees 0 to 180, finer still below 90: on the rim the radius bends within NARROW degrees of it. Linear above.
    "across": (
        lambda x: np.where(
            x <= 90.0,
            BELOW * (1.0 - np.arcsinh((90.0 - np.minimum(x, 90.0)) / NARROW) / np.arcsinh(90.0 / NARROW)),
            BELOW + (1.0 - BELOW) * (x / 90.0 - 1.0),
        ),
        lambda x: np.where(
            x <= BELOW,
            90.0 - NARROW * np.sinh(np.arcsinh(90.0 / NARROW) * (1.0 - np.minimum(x, BELOW) / BELOW)),
            90.0 + 90.0 * (x - BELOW) / (1.0 - BELOW),
        ),
    ),
}


@dataclass(frozen=True)
class Axis:
    """`count` knots from `low` to `high`, uniform after the transform `spacing` (linear, sqrt, rim, rim.7, fan or across).

    Examples:
        >>> from certlut.tablegen import Axis
        >>> Axis(1.0, 4.0, 3, "sqrt").knots().tolist()
        [1.0, 2.25, 4.0]
    """

    low: float
    high: float
    count: int
    spacing: str

    def knots(self) -> Array:
        """The knots, increasing, shape (count,)."""
        forward, inverse = _SPACINGS[self.spacing]
        knots = np.asarray(inverse(np.linspace(forward(self.low), forward(self.high), self.count)), dtype=np.float64)
        knots[0], knots[-1] = self.low, self.high
        return knots


@dataclass(frozen=True)
class GridSpec:
    """A grid of nodes; `theta` in degrees.

    Examples:
        >>> from certlut.tablegen import Axis, GridSpec
        >>> grid = GridSpec(z=Axis(0.5, 2.0, 4, "sqrt"), rho=Axis(0.0, 0.9, 3, "rim"), theta=Axis(0.0, 90.0, 3, "fan"))
        >>> grid.shape, grid.size
        ((4, 3, 3), 36)
    """

    z: Axis
    rho: Axis
    theta: Axis

    def __post_init__(self) -> None:
        for name, limits in LIMITS.items():
            axis: Axis = getattr(self, name)
            if axis.spacing not in _SPACINGS:
                raise ValueError(f"grid axis {name}: spacing {axis.spacing!r}, expected one of {', '.join(_SPACINGS)}")
            if not (limits[0] <= axis.low < axis.high <= limits[1] and axis.count >= 2):
                raise ValueError(
                    f"grid axis {name}: {axis.count} knots from {axis.low} to {axis.high}, "
                    f"expected at least 2 knots, increasing, within [{limits[0]}, {limits[1]}]"
                )
            check_axis(f"grid axis {name}: {axis}", axis.knots(), limits)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Nodes along z, rho and theta."""
        return (self.z.count, self.rho.count, self.theta.count)

    @property
    def size(self) -> int:
        """Nodes in all."""
        return math.prod(self.shape)

    def card(self) -> str:
        """Canonical JSON of the grid, as stored in the table."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> str:
        """Hash of the card: two grids with the same hash have the same nodes."""
        return hashlib.sha256(self.card().encode()).hexdigest()


PRESETS = {
    "small": GridSpec(Axis(0.02, 4.5, 24, "sqrt"), Axis(0.0, 0.999, 12, "rim"), Axis(0.0, 180.0, 13, "fan")),
    "default": GridSpec(Axis(2.5e-4, 5.3, 240, "sqrt"), Axis(0.0, 0.9999, 44, "rim.7"), Axis(0.0, 180.0, 62, "across")),
    "dense": GridSpec(Axis(2.5e-4, 5.3, 384, "sqrt"), Axis(0.0, 0.9999, 64, "rim"), Axis(0.0, 180.0, 89, "fan")),
}


def grid_spec(grid: "str | GridSpec") -> GridSpec:
    """A preset by name, or the spec itself. ValueError for an unknown name."""
    if isinstance(grid, GridSpec):
        return grid
    if grid not in PRESETS:
        raise ValueError(f"grid {grid!r}: expected one of {', '.join(PRESETS)}, or a GridSpec")
    return PRESETS[grid]
