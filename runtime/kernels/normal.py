"""The normal distribution for compiled kernels: density, both tails, quantile; and the density of arrays."""

import math

import numpy as np
import numpy.typing as npt

from .arrays import Array
from .jit import jit

Coefficients = tuple[float, float, float, float, float, float, float, float]

INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
SQRT_HALF = math.sqrt(0.5)

# Numerators and denominators (from the constant term up) of AS 241, for p >= 0.075, then for t = sqrt(-log p) <= 5, then beyond.
_NEAR = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_MIDDLE = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


@jit
def density(x: float) -> float:
    """phi(x)."""
    return INV_SQRT_2PI * math.exp(-0.5 * x * x)


def densities(x: npt.ArrayLike) -> Array:
    """phi of every element, in the shape of `x`."""
    x = np.asarray(x, dtype=np.float64)
    return np.asarray(INV_SQRT_2PI * np.exp(-0.5 * x * x))


@jit
def upper(x: float) -> float:
    """P(u > x), to full relative accuracy for x > 0."""
    return 0.5 * math.erfc(x * SQRT_HALF)


@jit
def _polynomial(c: Coefficients, x: float) -> float:
    """Horner's rule, unrolled: Numba folds the constants in."""
    return ((((((c[7] * x + c[6]) * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@jit
def upper_quantile(p: float) -> float:
    """The x with P(u > x) = p, 0 < p <= 1/2, to a few roundings (1e-15): Wichura's AS 241, Applied Statistics 37 (1988)."""
    x = 0.5 - p
    if x <= 0.425:
        # Near 1/2 it is 1/2 - p, exact, that carries x's relative accuracy.
        t = 0.180625 - x * x
        return x * (_polynomial(_NEAR[0], t) / _polynomial(_NEAR[1], t))
    t = math.sqrt(-math.log(p))
    if t <= 5.0:
        return _polynomial(_MIDDLE[0], t - 1.6) / _polynomial(_MIDDLE[1], t - 1.6)
    return _polynomial(_FAR[0], t - 5.0) / _polynomial(_FAR[1], t - 5.0)
