"""The worst vote that local information allows at a shift: the paper's equation (2), by the generalised Neyman-Pearson lemma.

What is returned rests on the dual alone (`dual.py`): `value` is D at the multipliers returned, a lower bound of every f's vote
whatever the search did, up to `error`. A linear program on a grid gives the start, Newton's method the digits; where the worst set
hangs on a jump of some psi, or the information leaves a single f, Newton has nothing to grip, and the program is solved again on
cells divided at the edges found. That no f has the information is only said with a proof (Farkas).
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array

from .dual import LIMIT, Hinges, Levels, Optimum, maximise
from .information import Constraint, Information, Sense
from .line import Line
from .plane import Plane
from .start import solve_cells
from .strip import Strip

# A worst vote whose gap to the optimum is, by estimate, below this counts as solved.
TOLERANCE = 1e-8
# Newton's aim, and its steps from one start.
GOAL, STEPS = 1e-13, 30
# Beyond it the likelihood ratio overflows where its noise is.
FARTHEST = 25.0
# How exactly a vote is wanted, over its distance from the side asked for.
CLEAR = 1e-3
# Where a linear program misses a level by more than this over its scale, its multipliers are at their bounds, a poor start; with
# misses that cheap it gives another.
MISS, CHEAP = 1e-9, 1e2


class Status(enum.IntEnum):
    """How the search ended."""

    HARD = 0
    """Not converged: `value` is a lower bound, loose by about `gap`."""
    SOLVED = 1
    INFEASIBLE = 2
    """Proved: no classifier has this information. `value` is NaN."""


@dataclass(frozen=True)
class WorstVote:
    """The least smoothed vote at a shift, with the multipliers that prove it."""

    value: float
    """The dual's value: no f that has the information has a smaller vote, up to `error`."""
    multipliers: tuple[float, ...]
    """One a constraint, in order; where INFEASIBLE those of the proof."""
    status: Status
    error: float
    """Bounds what rounding and quadrature may add to `value`; of quadrature, what halving its panels changes. Where information and
    shift are along t and psi is ready-made there is no quadrature."""
    gap: float
    """An estimate of how far below the true worst vote `value` is."""

    @property
    def lower(self) -> float:
        """The vote that is certain: value - error; NaN where INFEASIBLE."""
        return self.value - self.error


@dataclass(frozen=True)
class Problem:
    """The integrals and levels of those constraints that matter at a shift (a, b), b >= 0."""

    constraints: tuple[Constraint, ...]
    kept: npt.NDArray[np.bool_]
    """Of the information's constraints, which `constraints` are."""
    hinges: Hinges
    levels: Levels

    def spread(self, a: Array) -> tuple[float, ...]:
        """Multipliers of all the information's constraints."""
        out = np.zeros(len(self.kept))
        out[self.kept] = a
        return tuple(out.tolist())


def _turned(c: Constraint) -> Constraint:
    """The constraint seen in a mirror: s -> -s."""
    across, plane = c.across, c.plane
    if plane is not None:
        return replace(c, plane=lambda t, s: plane(t, -s))
    return c if across is None else replace(c, across=lambda t: -across(t))


def _idle(c: Constraint) -> bool:
    """Whether a linear function of s says nothing at a shift along t: f averaged with its mirror image has `E[f psi] = 0`."""
    low, high = c.sense != Sense.AT_MOST, c.sense != Sense.AT_LEAST
    return c.plane is None and c.across is not None and not (low and c.level > 0.0) and not (high and c.level < 0.0)


def problem(information: Information, r: float, angle: float) -> Problem:
    """The problem for the shift r (cos angle, sin angle) in the plane of (t, s), its integrals got the cheapest way."""
    if not 0.0 <= r <= FARTHEST:
        raise ValueError(f"r = {r}: expected a radius from 0 to {FARTHEST:g}")
    if not math.isfinite(angle):
        raise ValueError(f"angle = {angle}: expected a finite number")
    along, across = r * math.cos(angle), r * math.sin(angle)
    # The sine of pi is not 0 in floating point, but a shift along the axis is another, simpler problem.
    if abs(across) <= 1e-15 * r:
        across = 0.0
    every = information.constraints
    kept = np.array([c.one_dimensional for c in every])
    if across != 0.0 or not kept.any() or not all(c.one_dimensional or _idle(c) for c in every):
        kept[:] = True
    constraints = tuple(c for c, keep in zip(every, kept, strict=True) if keep)
    if across < 0.0:
        constraints, across = tuple(map(_turned, constraints)), -across
    hinges: Hinges
    if any(c.plane is not None for c in constraints):
        hinges = Plane(constraints, along, across)
    elif across == 0.0 and all(c.one_dimensional for c in constraints):
        hinges = Line(constraints, along)
    else:
        hinges = Strip(constraints, along, across)
    for c, size in zip(constraints, hinges.size, strict=True):
        if not math.isfinite(size):
            raise ValueError(f"{c.name}: E psi^2 = {size}: expected a psi that is finite for |t|, |s| <= 12 and square integrable")
    low = np.array([c.sense != Sense.AT_LEAST for c in constraints]) * -LIMIT / hinges.size
    high = np.array([c.sense != Sense.AT_MOST for c in constraints]) * LIMIT / hinges.size
    return Problem(constraints, kept, hinges, Levels(np.array([c.level for c in constraints]), low, high))


def _search(hinges: Hinges, levels: Levels, start: Array | None, side: float | None) -> tuple[Optimum, list[Array]]:
    """(the best point found, its gap the smaller of Newton's and the program's; all multipliers met at the ends of searches)."""
    # No vote is below 0: the multipliers 0.
    best = Optimum(np.zeros(len(levels.level)), 0.0, math.inf, 0.0, 0.0)
    met: list[Array] = []
    upper = math.inf

    def climb(a: Array) -> None:
        nonlocal best
        found = maximise(hinges, levels, a, GOAL, STEPS)
        met.extend((a, found.a))
        if found.value > best.value or found.gap <= GOAL:
            best = found

    def done() -> bool:
        away = 0.0 if side is None else abs(best.value - side)
        return best.gap + best.beyond <= max(TOLERANCE, CLEAR * away) or best.value - best.error > 1.0

    if start is not None:
        climb(start)
        if done():
            return best, met
    for _ in range(hinges.rounds):
        psi, likelihood = hinges.cells()
        for price in (LIMIT, CHEAP):
            a, cost, miss = solve_cells(psi, likelihood, levels, hinges.size, price)
            climb(a)
            if price == LIMIT:
                upper = min(upper, cost)
            if miss <= MISS:
                break
        best = replace(best, gap=min(best.gap, max(0.0, upper - best.value)))
        if done():
            break
        hinges.divide(a, best.a)
    return best, met


def _checked(hinges: Hinges, levels: Levels, a: Array, kappa: float) -> tuple[float, float]:
    """(D or D_0 at a, what its quadrature may add)."""
    hinge = hinges.finer(a, kappa) if isinstance(hinges, Plane) else hinges(a, kappa)
    return kappa - hinge.value - float(a @ (hinges.mean - levels.level)), hinge.error


def _proof(hinges: Hinges, levels: Levels, met: list[Array]) -> tuple[Array, float] | None:
    """(multipliers, error) with D_0 > error: no f has the information; None where none of those met shows it."""
    for a in met:
        largest = float((np.abs(a) * hinges.size).max())
        if largest > 0.0:
            value, error = _checked(hinges, levels, a / largest, 0.0)
            if value > 2.0 * error:
                return a / largest, error
    return None


def solve_vote(information: Information, r: float, angle: float, start: Sequence[float] | None, side: float | None) -> WorstVote:
    """`worst_vote`, left less exact the farther it is from the vote `side`: what a scan for that vote needs. HARD says so."""
    p = problem(information, r, angle)
    best, met = _search(p.hinges, p.levels, None if start is None else np.array(start, dtype=np.float64)[p.kept], side)
    # No vote is above 1.
    gap = min(best.gap + best.beyond, max(1.0 - best.value, 0.0))
    # Only information that drives the multipliers away can be impossible.
    if gap > TOLERANCE or best.value - best.error > 1.0 or np.any(np.abs(best.a) * p.hinges.size > 1e3):
        proof = _proof(p.hinges, p.levels, met)
        if proof is not None:
            return WorstVote(math.nan, p.spread(proof[0]), Status.INFEASIBLE, proof[1], 0.0)
    value, error = _checked(p.hinges, p.levels, best.a, 1.0)
    status = Status.SOLVED if gap <= TOLERANCE else Status.HARD
    return WorstVote(value, p.spread(best.a), status, error, gap)


def worst_vote(information: Information, r: float, angle: float = 0.0, start: Sequence[float] | None = None) -> WorstVote:
    """The least vote at the shift r (cos angle, sin angle) over every f in [0, 1] that has the information; sigma = 1.

    Args:
        information: what is known of f in the plane of (t, s).
        r: length of the shift, >= 0.
        angle: of the shift to the t axis, in the plane of (t, s).
        start: multipliers near the optimum, as those of a neighbouring shift; saves the linear program.

    Returns:
        A WorstVote; look at its status. A vote of SOLVED or HARD is a lower bound either way.

    Raises:
        ValueError: r is not from 0 to FARTHEST, angle not finite, or some psi not square integrable.
    """
    return solve_vote(information, r, angle, start, None)
