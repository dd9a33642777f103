"""The certified radius of local information along a ray: the first r at which the worst vote falls to 1/2.

For every f the quantile z(r) = Phi^-1(E f L_r) changes no faster than r, and so does that of the worst vote; and |d^2/dr^2 E f L_r|
<= 2 phi(1). So between two points whose worst votes are 1/2 + x and 1/2 + y, h apart, there is none below 1/2 if h <= z_x + z_y, or
if (1 - w) x + w y >= phi(1) w (1 - w) h^2 for 0 <= w <= 1. The scan jumps no farther than one of these covers: a ray that leaves
the region and comes back to it ends where it leaves. What it goes by is the certain vote, `WorstVote.lower`.
"""

import math
from dataclasses import dataclass

from scipy.special import ndtri

from .information import Information
from .worst import Status, WorstVote, solve_vote

# Relative to 1 + radius.
TOLERANCE = 1e-9
LIMIT = 12.0
# Votes computed along one ray, at most.
MOST = 200
PHI1 = math.exp(-0.5) / math.sqrt(2.0 * math.pi)


@dataclass(frozen=True)
class Scan:
    """A scan along a ray."""

    radius: float
    """The worst vote is at least 1/2 from 0 to here."""
    upper: float
    """A point just beyond, with a smaller vote; inf where the scan reached its limit."""
    status: Status
    """HARD where the true radius may be larger: the vote at `upper` may be loose, or the scan was given up."""
    votes: tuple[tuple[float, WorstVote], ...]
    """Every vote that was computed, by r."""


def _covered(low: float, high: float, x: float, y: float) -> bool:
    """Whether the votes 1/2 + x at low and 1/2 + y at high, both at least 1/2, leave none below 1/2 between them."""
    h = high - low
    if h <= float(ndtri(0.5 + x) + ndtri(0.5 + y)):
        return True
    # (1 - w) x + w y - k w (1 - w), k = phi(1) h^2: least at w = 1/2 + (x - y) / (2 k), if that is inside.
    k = PHI1 * h * h
    w = min(max(0.5 + (x - y) / (2.0 * k), 0.0), 1.0)
    return (1.0 - w) * x + w * y >= k * w * (1.0 - w)


def scan(information: Information, angle: float = 0.0, limit: float = LIMIT) -> Scan:
    """Walk from 0 along the ray at `angle` to the t axis until the worst vote falls to 1/2, or to `limit`; sigma = 1.

    Raises:
        ValueError: no classifier has the information.
    """
    votes: dict[float, WorstVote] = {}

    def surplus(r: float) -> float:
        near = min(votes, key=lambda x: abs(x - r), default=None)
        start = None if near is None else votes[near].multipliers
        votes[r] = solve_vote(information, r, angle, start, 0.5)
        if votes[r].status == Status.INFEASIBLE:
            raise ValueError(information.impossible())
        return votes[r].lower - 0.5

    low, x = 0.0, surplus(0.0)
    high, y = math.inf, 0.0
    if x < 0.0:
        return Scan(0.0, 0.0, votes[0.0].status, tuple(votes.items()))
    ahead: list[tuple[float, float]] = []
    before: tuple[float, float] | None = None
    while low < limit and high - low > TOLERANCE * (1.0 + low) and len(votes) < MOST:
        z = float(ndtri(min(0.5 + x, 1.0 - 1e-16)))
        if ahead and _covered(low, ahead[-1][0], x, ahead[-1][1]):
            before, (low, x) = (low, z), ahead.pop()
            continue
        end = min(high, ahead[-1][0] if ahead else math.inf)
        r = min(_next(low, z, before, end, y if end == high else None), limit)
        s = surplus(r)
        if s >= 0.0:
            ahead.append((r, s))
        else:
            high, y, ahead = r, s, []
    if low >= limit:
        return Scan(limit, math.inf, Status.SOLVED, tuple(votes.items()))
    loose = len(votes) >= MOST or (votes[high].status == Status.HARD and votes[high].value + votes[high].gap > 0.5)
    return Scan(low, high, Status.HARD if loose else Status.SOLVED, tuple(votes.items()))


def radius(information: Information, angle: float = 0.0, limit: float = LIMIT) -> float:
    """The first r at which the worst vote along the ray falls to 1/2; `limit` where it has not yet; 0 where it starts below.

    Raises:
        ValueError: no classifier has the information.
        ArithmeticError: the search did not converge; `scan` has what was proved, a lower bound.
    """
    found = scan(information, angle, limit)
    if found.status != Status.SOLVED:
        raise ArithmeticError(f"no convergence at r = {found.upper!r}: the radius is at least {found.radius!r} (see `scan`)")
    return found.radius


def _next(low: float, z: float, before: tuple[float, float] | None, end: float, y: float | None) -> float:
    """Where to look next: where the line through the last two quantiles meets 0, not behind what is certain, nor past the end."""
    sure = low + z
    least = low + TOLERANCE * (1.0 + low)
    guess = sure
    if before is not None and before[1] > z:
        guess = low + z * (low - before[0]) / (before[1] - z)
    if y is not None:
        # Between a point above 1/2 and one below: the line through both, kept off the ends.
        other = float(ndtri(0.5 + y)) if y > -0.5 else -8.0
        if not low < guess < end:
            guess = low + (z / (z - other) if z > 0.0 else 0.5) * (end - low)
    guess = max(guess, sure, least)
    if guess >= end:
        guess = 0.5 * (max(sure, low) + end) if sure < end else 0.5 * (low + end)
    return min(guess, low + 1.5 + z)
