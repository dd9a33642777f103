"""Local information about a vote f: what is known of `E[f psi]`, u = (t, s) standard normal, sigma = 1.

t is the coordinate of the noise along an axis (as a rule the direction of the shift), s one across it. A constraint says that
`E[f psi(t, s)]` is at least, at most or exactly its level. Most psi are affine in s, `psi = along(t) + across(t) s`: given t the
integral over s is then a closed form; those of t alone with a known `integral` need no quadrature at all.
"""

import enum
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import eval_hermitenorm, ndtr

Array = npt.NDArray[np.float64]
Along = Callable[[Array], Array]
Plane = Callable[[Array, Array], Array]


class Sense(enum.StrEnum):
    """How `E[f psi]` compares with the level."""

    AT_LEAST = ">="
    AT_MOST = "<="
    EXACTLY = "="


@dataclass(frozen=True)
class Constraint:
    """`E[f psi] sense level`; psi = along(t) + across(t) s, or plane(t, s) where that is given. Functions are of arrays."""

    name: str
    level: float
    sense: Sense
    along: Along
    across: Along | None = None
    plane: Plane | None = None
    integral: Callable[[Array, Array], Array] | None = None
    """Integral of along(t) phi(t) over x < t < y (infinite ends too), exact up to rounding."""
    breaks: tuple[float, ...] = ()
    """The t at which psi jumps or bends (right-continuous there)."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.level):
            raise ValueError(f"{self.name}: level = {self.level}: expected a finite number")

    def psi(self, t: Array, s: Array) -> Array:
        """psi(t, s) on arrays that broadcast."""
        t, s = np.broadcast_arrays(t, s)
        if self.plane is not None:
            return np.asarray(self.plane(t, s))
        value = self.along(t)
        return np.asarray(value if self.across is None else value + self.across(t) * s)

    @property
    def one_dimensional(self) -> bool:
        """Whether psi is a function of t alone."""
        return self.across is None and self.plane is None


@dataclass(frozen=True)
class Information:
    """All that is known: every constraint holds at once."""

    constraints: tuple[Constraint, ...]

    def __init__(self, constraints: Iterable[Constraint]) -> None:
        object.__setattr__(self, "constraints", tuple(constraints))
        if not self.constraints:
            raise ValueError("information: expected at least one constraint")

    def __add__(self, more: "Information") -> "Information":
        return Information(self.constraints + more.constraints)

    def __len__(self) -> int:
        return len(self.constraints)

    def impossible(self) -> str:
        """What to tell a user whose information is proved infeasible."""
        said = ", ".join(f"{c.name} {c.sense} {c.level:g}" for c in self.constraints)
        return f"no classifier has the information {said}"

    def of(self, left: Sequence[float], right: Sequence[float]) -> "Information":
        """The same functions and senses at the levels of the classifier that is 1 for left[i] < t < right[i], and 0 elsewhere.

        ValueError where a constraint's integral is not a closed form.
        """
        x, y = np.array(left, dtype=np.float64), np.array(right, dtype=np.float64)
        levels = []
        for c in self.constraints:
            if c.plane is not None or (c.integral is None and c.across is None):
                raise ValueError(f"{c.name}: its integral is not a closed form; give levels to `at`")
            levels.append(0.0 if c.integral is None else float(c.integral(x, y).sum()))
        return self.at(levels)

    def at(self, levels: Sequence[float]) -> "Information":
        """The same functions and senses at other levels, one each, in order."""
        return Information(replace(c, level=float(x)) for c, x in zip(self.constraints, levels, strict=True))


def density(x: Array) -> Array:
    """phi(x); 0 at infinity."""
    return np.asarray(np.exp(-0.5 * np.square(x)) / math.sqrt(2.0 * math.pi))


def mass(x: Array, y: Array) -> Array:
    """P(x < t < y) for x <= y, from the smaller tail so that it keeps its relative accuracy."""
    turn = np.asarray(x) > 0.0
    return np.asarray(ndtr(np.where(turn, -x, y)) - ndtr(np.where(turn, -y, x)))


def _ones(t: Array) -> Array:
    return np.ones_like(t)


def value(level: float, sense: str = ">=") -> Constraint:
    """The vote itself: E f."""
    return Constraint("value", level, Sense(sense), _ones, integral=mass)


def hermite(k: int, level: float, sense: str = "=") -> Constraint:
    """`E[f He_k(t)]`: the k-th derivative of the smoothed vote along the axis, times sigma^k. ValueError for k < 1."""
    if k < 1:
        raise ValueError(f"k = {k}: expected a derivative's order, 1 or more (order 0 is `value`)")

    def along(t: Array) -> Array:
        return np.asarray(eval_hermitenorm(k, t))

    def lower(t: Array) -> Array:
        # -d/dt (He_{k-1} phi) = He_k phi; 0 at infinity.
        finite = np.where(np.isfinite(t), t, 0.0)
        return np.where(np.isfinite(t), eval_hermitenorm(k - 1, finite) * density(finite), 0.0)

    name = {1: "slope", 2: "curvature"}.get(k, f"hermite({k})")
    return Constraint(name, level, Sense(sense), along, integral=lambda x, y: lower(x) - lower(y))


def slope(level: float, sense: str = ">=") -> Constraint:
    """`E[f t]`: sigma times the slope of the smoothed vote along the axis."""
    return hermite(1, level, sense)


def curvature(level: float, sense: str = "=") -> Constraint:
    """`E[f (t^2 - 1)]`: sigma^2 times its second derivative along the axis."""
    return hermite(2, level, sense)


def slope_across(level: float, sense: str = ">=") -> Constraint:
    """`E[f s]`: sigma times its slope across the axis."""
    return Constraint("slope_across", level, Sense(sense), np.zeros_like, across=_ones)


def mixed(level: float, sense: str = "=") -> Constraint:
    """`E[f t s]`: sigma^2 times its mixed second derivative."""
    return Constraint("mixed", level, Sense(sense), np.zeros_like, across=lambda t: t)


def curvature_across(level: float, sense: str = "=") -> Constraint:
    """`E[f (s^2 - 1)]`: sigma^2 times its second derivative across the axis; not affine in s, so solved on panels in the plane."""
    return Constraint("curvature_across", level, Sense(sense), np.zeros_like, plane=lambda t, s: s * s - 1.0)


def bin(a: float, b: float, level: float, sense: str = "=") -> Constraint:
    """`P(f = 1, a <= t < b)`. ValueError unless a < b (either may be infinite)."""
    if not a < b:
        raise ValueError(f"bin from {a} to {b}: expected a < b")

    def along(t: Array) -> Array:
        return np.asarray((t >= a) & (t < b), dtype=np.float64)

    def integral(x: Array, y: Array) -> Array:
        left, right = np.clip(x, a, b), np.clip(y, a, b)
        return mass(left, right)

    breaks = tuple(x for x in (a, b) if math.isfinite(x))
    return Constraint(f"bin({a:g}, {b:g})", level, Sense(sense), along, integral=integral, breaks=breaks)


def tail(tau: float, against: float, sense: str = "<=", side: int = 1) -> Constraint:
    """`P(f = 0, side t >= tau) <= against`: few of the votes AGAINST lie that far out, on the side 1 (t > 0) or -1 (t < 0).

    Kept as a bound of `P(f = 1, side t >= tau)` from the other side. ValueError for another side.
    """
    if side not in (1, -1):
        raise ValueError(f"side = {side}: expected 1 or -1")
    turned = {"<=": ">=", ">=": "<=", "=": "="}[Sense(sense)]
    ends = (tau, math.inf) if side == 1 else (-math.inf, -tau)
    return replace(bin(*ends, float(ndtr(-tau)) - against, turned), name=f"tail({tau:g})" if side == 1 else f"tail({tau:g}, -1)")


def vote_at(r0: float, level: float, sense: str = ">=") -> Constraint:
    """The vote at another point of the line, r0 sigma along the axis: `E[f exp(r0 t - r0^2/2)]`."""

    def along(t: Array) -> Array:
        return np.asarray(np.exp(r0 * t - 0.5 * r0 * r0))

    return Constraint(f"vote_at({r0:g})", level, Sense(sense), along, integral=lambda x, y: mass(x - r0, y - r0))


def moment(
    psi: Callable[..., Array], level: float, sense: str = "=", *, breaks: Sequence[float] = (), name: str = "moment"
) -> Constraint:
    """Any information: psi(t), or psi(t, s), on arrays of one shape; growing no faster than exp(|t| + |s|), say.

    Name the t at which psi jumps or bends in `breaks`: quadrature and the search for the worst set split there.
    """
    named = inspect.signature(psi).parameters.values()
    count = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in named)
    if count not in (1, 2):
        raise ValueError(f"{name}: psi takes {count} arguments: expected psi(t) or psi(t, s)")
    own = tuple(sorted(float(x) for x in breaks))
    if count == 2:
        return Constraint(name, level, Sense(sense), np.zeros_like, plane=psi, breaks=own)
    return Constraint(name, level, Sense(sense), psi, breaks=own)
