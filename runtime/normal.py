"""The normal distribution for compiled kernels: density, both tails, quantile."""

import math

from .jit import jit

INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
SQRT_HALF = math.sqrt(0.5)


@jit
def density(x: float) -> float:
    """phi(x)."""
    return INV_SQRT_2PI * math.exp(-0.5 * x * x)


@jit
def upper(x: float) -> float:
    """P(u > x), to full relative accuracy for x > 0."""
    return 0.5 * math.erfc(x * SQRT_HALF)


@jit
def upper_quantile(p: float) -> float:
    """The x with P(u > x) = p, 0 < p <= 1/2, to a few roundings: a rational start, then two Halley steps."""
    # |error| < 4.5e-4 (Abramowitz and Stegun 26.2.23); Halley cubes it each time.
    t = math.sqrt(-2.0 * math.log(p))
    x = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    near = p > 0.25
    for _ in range(3 if near else 2):
        # Near 1/2 it is 1/2 - p that carries x's relative accuracy.
        e = ((0.5 - p) - 0.5 * math.erf(x * SQRT_HALF) if near else upper(x) - p) / density(x)
        x += e / (1.0 - 0.5 * x * e)
    return x
