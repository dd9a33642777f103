"""How a threat's ball is covered by shifts a e + b e', e a direction whose tails are known: b <= beta(a) for every a (R = 1).

For a shift delta of the ball let e be the direction of the family with the largest component a = e.delta > 0, and b the length of
what is left. What remains is the largest b for a given a:

- lp, 1 <= p < 2, on w + 1 coordinates (e: the largest one): of sum |x_i|^p <= 1 - a^p, |x_i| <= a, the sum of squares is convex in
  the |x_i|^p, so as many as fit have |x_i| = a:  beta^2 = k a^2 + (1 - (k + 1) a^p)^(2/p),  k = floor(a^-p) - 1, at most w a^2.
- lp, p >= 2, on w + 1 coordinates: it is concave, so all are equal:  beta^2 = w min(a^2, ((1 - a^p)/w)^(2/p)).
- l2 with any w + 1 coordinates, or in the span of a net whose nearest direction is within an angle `gap`, w = tan(gap)^2: the same
  with p = 2, beta^2 = min(w a^2, 1 - a^2). One direction, or both ways along it: w = 0.

So a pair (p, w) is a family, and a ball of size R has beta(a) = R beta(a/R). As an angle grows from 0 to atan(sqrt(w)) the boundary
goes from (1, 0) up; `reach` is how far out it is there. (For p >= 2 the rest of a's range lies on the last ray.)
"""

import math
from dataclasses import dataclass

from .jit import jit

# Relative allowance for the rounding of what is computed here.
UP = 1.0 + 1e-13


@jit
def across(a: float, p: float, w: float) -> float:
    """beta(a) of the unit ball, 0 < a <= 1, rounded up."""
    if p == math.inf:
        return math.sqrt(w) * a * UP
    if w <= 0.0 or a >= 1.0:
        return 0.0
    # 1 - a^p keeps its relative accuracy.
    rest = -math.expm1(p * math.log(a))
    if p >= 2.0:
        return math.sqrt(w) * min(a, math.pow(rest / w, 1.0 / p)) * UP
    part = 1.0 - rest
    whole = math.floor(rest / part)
    square = whole * a * a + math.pow(max(rest - whole * part, 0.0), 2.0 / p)
    return math.sqrt(min(square, w * a * a)) * UP


@jit
def turning_point(p: float, w: float) -> float:
    """The a from which down beta(a) = sqrt(w) a, and the shift's length is largest where p >= 2."""
    if p == math.inf:
        return 1.0
    return math.pow(1.0 + w, -1.0 / p) if p != 2.0 else 1.0 / math.sqrt(1.0 + w)


@jit
def furthest(low: float, high: float, p: float, w: float) -> float:
    """The largest sqrt(a^2 + beta(a)^2) over low <= a <= high, 0 < low <= high <= 1, rounded up.

    p >= 2: it rises to `turning_point` and falls beyond. p < 2: its square is convex in a^p between the points a^-p = 1, 2, ...,
    where the length is a^(1 - p/2), rising; so it is largest at an end or at the last of these points.
    """
    length = max(math.hypot(low, across(low, p, w)), math.hypot(high, across(high, p, w)))
    if p >= 2.0:
        turn = turning_point(p, w)
        if low < turn < high:
            length = max(length, turn * math.sqrt(1.0 + w))
    else:
        count = math.ceil(math.pow(high, -p) * (1.0 - 1e-13))
        if count <= w + 1.0 and math.pow(count, -1.0 / p) >= low * (1.0 - 1e-13):
            length = max(length, math.pow(count, 0.5 - 1.0 / p))
    return length * UP


@jit
def reach(angle: float, p: float, w: float) -> float:
    """Length of the boundary's shift at an angle from e, in radians, 0 <= angle <= atan(sqrt(w)), < pi/2; rounded up."""
    tangent = math.tan(angle)
    if p == math.inf:
        return UP / math.cos(angle)
    if p >= 2.0:
        # a^p (1 + w (tan / sqrt(w))^p) = 1.
        share = w * math.pow(tangent / math.sqrt(w), p) if w > 0.0 else 0.0
    else:
        # Just after a corner the boundary falls like a power of what is left of tan^2: that is rounded down first.
        square = tangent * tangent * (1.0 - 1e-14)
        whole = math.floor(square)
        share = whole + math.pow(square - whole, 0.5 * p)
    return math.pow(1.0 + share, -1.0 / p) / math.cos(angle) * UP


@jit
def furthest_within(low: float, high: float, p: float, w: float) -> float:
    """The largest `reach` over low <= angle <= high, rounded up; 0 where the ball has none of these angles."""
    last = math.atan(math.sqrt(w))
    if low > last:
        return 0.0
    high = min(high, last)
    length = max(reach(low, p, w), reach(high, p, w))
    if p < 2.0:
        # The corners where tan^2 is whole; the first of them is the furthest out.
        square = math.tan(low)
        corner = math.ceil(square * square * (1.0 - 1e-13))
        if corner <= w and math.atan(math.sqrt(corner)) <= high * (1.0 + 1e-13):
            length = max(length, math.pow(1.0 + corner, 0.5 - 1.0 / p) * UP)
    return length


@dataclass(frozen=True)
class Covering:
    """A family of balls: exponent p and weight w, as above."""

    p: float
    w: float

    def __post_init__(self) -> None:
        if not (self.p >= 1.0 and 0.0 <= self.w < math.inf and (self.p >= 2.0 or self.w == math.floor(self.w))):
            raise ValueError(f"(p, w) = ({self.p}, {self.w}): expected 1 <= p <= inf and w >= 0, a whole number where p < 2")

    @property
    def last(self) -> float:
        """The largest angle between a shift and its direction, radians."""
        return math.atan(math.sqrt(self.w))

    @property
    def kappa(self) -> float:
        """The largest l2 length of a shift of the unit ball (a net's ball is measured in l2)."""
        return max(1.0, math.pow(1.0 + self.w, 0.5 - 1.0 / self.p))

    @classmethod
    def lp(cls, p: float, coordinates: int) -> "Covering":
        """The lp ball on this many coordinates, directions +-e_j of each."""
        return cls(float(p), coordinates - 1.0)

    @classmethod
    def sparse(cls, k: int) -> "Covering":
        """Any k coordinates, l2, directions +-e_j of all."""
        return cls(2.0, k - 1.0)

    @classmethod
    def line(cls) -> "Covering":
        """One direction, or both ways along it."""
        return cls(2.0, 0.0)

    @classmethod
    def net(cls, gap: float) -> "Covering":
        """The l2 ball of a subspace, directions within an angle `gap` (radians, below pi/2) of each of its vectors."""
        if not 0.0 <= gap < 0.5 * math.pi:
            raise ValueError(f"gap = {gap!r}: expected an angle of at least 0 and less than pi/2")
        return cls(2.0, math.tan(gap) ** 2 * (1.0 + 1e-14))
