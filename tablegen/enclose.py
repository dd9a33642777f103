"""An upper bound of a cut's hinge H = E(L_r(u1) - a0 - a1 u1 - a2 u2)_+ in ball arithmetic (python-flint).

With s(t) = (L_r(t) - a0 - a1 t) / a2, a convex function, G(s) = s Phi(s) + phi(s) and Q = 1 - Phi,

    H = a2 int phi(t) G(s(t)) dt      (a2 > 0).

The real line is cut where s leaves [-S, S]. Where s <= -S (an interval), 0 <= G(s) <= G(-S). Where s >= S (at most two
half-lines), G(s) = s + G(-s), the integral of a2 phi s = phi L_r - phi (a0 + a1 t) is closed, and again 0 <= G(-s) <= G(-S).
A half-line on which s does neither is cut at a distance T beyond 0 and r, where (L - a.(1, u))_+ <= L + a1 t_- + a2 (u2)_-.
What remains is an integral of an entire function over at most two short intervals, enclosed by `acb.integral`. Where to cut
is found in floats and checked in balls.
"""

import math
from contextlib import AbstractContextManager
from typing import Any

PRECISION = 64  # bits
LINE_PRECISION = 128  # bits where a2 = 0: closed forms, which cancel at small radii
FAR = 9.0  # the least S and T
MEAN_VALUE = 1.0  # radii below which s(t) is evaluated in mean-value form
METHOD = f"python-flint acb.integral at {PRECISION} bits"


def working_precision(a2: float) -> AbstractContextManager[None]:
    """Inside it balls have the precision that a cut with this a2 asks for; the caller's is given back behind it."""
    from flint import ctx

    precision: AbstractContextManager[None] = ctx.workprec(PRECISION if a2 > 0.0 else LINE_PRECISION)
    return precision


class Hinge:
    """H of one node in balls of the current precision; the arguments are taken at their exact binary values, a2 > 0."""

    def __init__(self, r: float, a0: float, a1: float, a2: float) -> None:
        from flint import acb, arb

        self.float = (r, a0, a1, a2)
        self.r, self.a0, self.a1, self.a2 = arb(r), arb(a0), arb(a1), arb(a2)
        self.root2 = arb(2).sqrt()
        self.peak = 1 / (2 * arb.pi()).sqrt()
        # Far enough that a2 G(-S) and a2 Q(T) drown in the last digits.
        self.far = max(FAR, math.sqrt(2.0 * math.log(max(a2, 1.0) * 1e16)))
        slope, level, scale = acb(self.a1 / self.a2), acb(self.a0 / self.a2), acb((-self.r * self.r / 2).exp() / self.a2)
        rate, peak, turn = acb(self.r), acb(self.peak), acb(-1 / self.root2)

        def integrand(t: Any, _analytic: bool) -> Any:
            if r < MEAN_VALUE:
                # s(m) + s'(t) (t - m): on a wide ball L_r and a1 t nearly cancel, and subtracting them would forget it.
                m = t.mid()
                s = scale * (rate * m).exp() - level - slope * m + (scale * rate * (rate * t).exp() - slope) * (t - m)
            else:
                s = scale * (rate * t).exp() - level - slope * t
            tt = t * t
            return s * (-tt / 2).exp() * (s * turn).erfc() / 2 + peak * (-(tt + s * s) / 2).exp()

        self.integrand = integrand

    def tail(self, x: Any) -> Any:
        """Q(x)."""
        return (x / self.root2).erfc() / 2

    def density(self, x: Any) -> Any:
        """phi(x)."""
        return self.peak * (-x * x / 2).exp()

    def s(self, t: Any) -> Any:
        """s(t) as a ball."""
        return ((self.r * t - self.r * self.r / 2).exp() - self.a0 - self.a1 * t) / self.a2

    def upper(self) -> Any:
        """An upper bound of H as a ball of radius 0."""
        from flint import acb, arb

        far = arb(self.far)
        # G(-S) <= phi(S) / S^2.
        leak = self.a2 * self.density(far) / (far * far)
        left, valley, right = self._cuts()
        total = leak
        if left is not None:
            low = arb(left)
            total += self.tail(self.r - low) - self.a0 * self.tail(-low) + self.a1 * self.density(low)
        else:
            low = -far
            total += self.tail(self.r + far) + self.a1 * self.density(far) + self.a2 * self.peak * self.tail(far)
        if right is not None:
            high = arb(right)
            total += self.tail(high - self.r) - self.a0 * self.tail(high) - self.a1 * self.density(high)
        else:
            high = self.r + far
            total += self.tail(far) + self.a2 * self.peak * self.tail(high)
        pieces = [(low, high)] if valley is None else [(low, arb(valley[0])), (arb(valley[1]), high)]
        for start, end in pieces:
            if start < end:
                body = acb.integral(
                    self.integrand, acb(start), acb(end), rel_tol=2.0**-48, abs_tol=2.0**-60 / max(1.0, self.float[3])
                )
                total += self.a2 * self.peak * body.real
        return total.upper()

    def _cuts(self) -> tuple[float | None, tuple[float, float] | None, float | None]:
        """(left, valley, right): s >= S left of `left` and right of `right`, s <= -S on `valley`; None where not certain."""
        r, a0, a1, a2 = self.float
        lowest = (math.log(a1 / r) / r + 0.5 * r) if a1 > 0.0 else -self.far - 1.0

        def crossing(level: float, outside: float) -> float:
            """Bisection for s = level between the lowest point and `outside`."""
            inside = lowest
            for _ in range(40):
                middle = 0.5 * (inside + outside)
                if (math.exp(min(r * middle - 0.5 * r * r, 700.0)) - a0 - a1 * middle) / a2 > level:
                    outside = middle
                else:
                    inside = middle
            return outside if level > 0.0 else inside

        top, bottom = r + self.far, -self.far
        right = crossing(self.far, top)
        right_holds = lowest < right < top and self.s(right) >= self.far and self.s(right) > self.s(lowest)
        left = crossing(self.far, bottom) if a1 > 0.0 and bottom < lowest else bottom
        left_holds = bottom < left < lowest and self.s(left) >= self.far and self.s(left) > self.s(lowest)
        valley = None
        if lowest < top and self.s(max(lowest, bottom)) <= -self.far:
            inner = crossing(-self.far, bottom) if a1 > 0.0 and bottom < lowest else bottom, crossing(-self.far, top)
            if inner[0] < inner[1] and self.s(inner[0]) <= -self.far and self.s(inner[1]) <= -self.far:
                valley = inner
        return (left if left_holds else None), valley, (right if right_holds else None)


def hinge_upper(r: float, a0: float, a1: float, a2: float) -> Any:
    """An upper bound of H as an exact ball, for the arguments' exact binary values."""
    with working_precision(a2):
        return Hinge(r, a0, a1, a2).upper() if a2 > 0.0 else _line(Hinge(r, a0, a1, 1.0))


def _line(node: Hinge) -> Any:
    """H for a2 = 0 (`node` has a2 = 1): L_r > a0 + a1 t outside [w2, w1] only (L_r is convex); both edges enclosed by bisection."""
    from flint import arb

    if not node.s(arb(0)) < 0:
        raise ArithmeticError("a cut with a0 <= L_r(0): the origin must lie inside the slab")

    def edge(outside: Any) -> Any:
        inside = arb(0)
        for _ in range(64):
            if node.s(outside) > 0:
                break
            outside = outside * 2
        else:
            raise ArithmeticError("no edge of the slab was found")
        for _ in range(LINE_PRECISION):
            middle = ((inside + outside) / 2).mid()
            value = node.s(middle)
            if value > 0:
                outside = middle
            elif value < 0:
                inside = middle
            else:
                break
        return inside.union(outside)

    w1 = edge(arb(1))
    total = node.tail(w1 - node.r) - node.a0 * node.tail(w1) - node.a1 * node.density(w1)
    if node.float[2] > 0.0:
        w2 = edge(arb(-1))
        total += node.tail(node.r - w2) - node.a0 * node.tail(-w2) + node.a1 * node.density(w2)
    return total.upper()
