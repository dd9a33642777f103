"""An upper bound of E[(L - Lam)_+; lo <= t < hi] in ball arithmetic (python-flint), L = exp(a t + b s - (a^2 + b^2)/2).

With D(t) = a t - a^2/2, d1 = (D - log Lam)/b + b/2 and d2 = d1 - b it is the integral of
f = phi(t - a) Phi(d1) - Lam phi(t) Phi(d2), which lies between 0 and phi(t - a). The line is cut where

- d2 >= S: there f <= phi(t - a) - Lam phi(t) + Lam phi(t) Phi(-S), and Lam <= exp(D), so the last term adds up to at most Phi(-S);
- d1 <= -S: there f <= phi(t - a) Phi(-S), which adds up to at most Phi(-S);
- |t - a| > T: there f <= phi(t - a), which adds up to at most Phi(-T) on either side.

What is left is an integral of an entire function over a short interval, enclosed by `acb.integral`. For b = 0 the integrand is
(phi(t - a) - Lam phi(t))_+, a closed form. Cuts are chosen in floats, outward or inward as it must be, and checked in balls.
"""

import math
from typing import Any

PRECISION = 64  # bits
S, T = 7.5, 8.0
METHOD = f"python-flint acb.integral at {PRECISION} bits"


class Shift:
    """A shift of length r at an angle of `theta` degrees from e, both taken at their exact binary values."""

    def __init__(self, r: float, theta: float) -> None:
        from flint import arb, ctx

        ctx.prec = PRECISION
        turn = arb(theta) / 180
        self.straight = theta == 0.0
        self.a, self.b = arb(r) * turn.cos_pi(), arb(r) * turn.sin_pi()
        self.root2 = arb(2).sqrt()
        self.peak = 1 / (2 * arb.pi()).sqrt()

    def tail(self, x: Any) -> Any:
        """Q(x)."""
        return (x / self.root2).erfc() / 2

    def between(self, lo: Any, hi: Any) -> Any:
        """Q(lo) - Q(hi) as a ball; None stands for an infinite end."""
        left = 1 if lo is None else self.tail(lo)
        return left if hi is None else left - self.tail(hi)

    def net(self, level: Any, lo: Any, hi: Any) -> Any:
        """The integral of phi(t - a) - level phi(t) from lo to hi."""
        shifted = (None if end is None else end - self.a for end in (lo, hi))
        return self.between(*shifted) - level * self.between(lo, hi)

    def upper(self, level: float, lo: float, hi: float) -> Any:
        """The bound as an exact ball, for the exact binary values of the arguments; lo and hi may be infinite."""
        from flint import arb

        ends = [None if math.isinf(end) else arb(end) for end in (lo, hi)]
        if level == 0.0:
            return self.net(arb(0), *ends).upper()
        lam = arb(level)
        crossing = lam.log() / self.a + self.a / 2
        if self.straight:
            if ends[1] is not None and crossing >= ends[1]:
                return arb(0)
            start = crossing if ends[0] is None else crossing.max(ends[0])
            if ends[1] is not None:
                start = start.min(ends[1])
            return self.net(lam, start, ends[1]).upper()
        reach = self.b * (S + self.b / 2) / self.a
        full, none, middle = float((crossing + reach).upper()), float((crossing - reach).lower()), float(self.a)
        full, none = math.nextafter(full, math.inf), math.nextafter(none, -math.inf)
        total, leak = arb(0), self.tail(arb(S))
        if hi > full:
            total += self.net(lam, arb(max(lo, full)), ends[1]) + leak
        if lo < none:
            total += leak
        left, right = max(lo, none, middle - T - 1e-3), min(hi, full, middle + T + 1e-3)
        if lo < middle - T:
            total += self.tail(arb(T))
        if hi > middle + T:
            total += self.tail(arb(T))
        if left < right:
            total += self._integral(lam, left, right)
        return total.upper()

    def _integral(self, lam: Any, left: float, right: float) -> Any:
        """f from left to right."""
        from flint import acb

        a, b, level, turn = acb(self.a), acb(self.b), acb(lam), acb(-1 / self.root2)
        slope = a / b
        offset = b / 2 - (a * a / 2 + level.log()) / b

        def integrand(t: Any, _analytic: bool) -> Any:
            d1 = slope * t + offset
            shifted = t - a
            first = (-shifted * shifted / 2).exp() * (d1 * turn).erfc()
            return first - level * (-t * t / 2).exp() * ((d1 - b) * turn).erfc()

        body = acb.integral(integrand, acb(left), acb(right), rel_tol=2.0**-30, abs_tol=2.0**-44)
        return self.peak / 2 * body.real
