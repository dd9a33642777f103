"""The larger coordinates of a proposal (bets.THIN) at expected values.

Coordinates of a proposal w are taken for normal numbers around what w has along y, what it has across y spread evenly over them.
Of X ~ N(m, s^2) soft-thresholded at k, a = (m - k) / s, the part above k has the means

    E (X - k)+ = (m - k) Phi(a) + s phi(a),    E (X - k)+^2 = ((m - k)^2 + s^2) Phi(a) + (m - k) s phi(a).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from ..kernels.arrays import Array
from ..sampling.stakes import THINNED
from .model import LEAST, Gradient, deviation, largest


class Soft(NamedTuple):
    """The thresholded coordinates t of a proposal that lie in one part of the gradient, before they are made a unit vector."""

    linf: float
    l1: float
    l2: float
    along_y: float
    """t.y."""
    along_w: float
    """t.w."""


NOTHING = Soft(0.0, 0.0, 1.0, 0.0, 0.0)
"""Where nothing was proposed."""


def soft(y: Gradient, whole: float, cosine: float, d: int) -> Soft:
    """Expected, of a part y of a gradient of length `whole` in d dimensions."""
    k, s, m = THINNED / math.sqrt(d), deviation(cosine, d), cosine * y.size / max(whole, LEAST)
    (up, up2), (down, down2) = _above(m - k, s), _above(-m - k, s)
    l1, square = float(y.times @ (up + down)), float(y.times @ (up2 + down2))
    top = max(largest(Gradient(m, y.times), s, np.zeros_like(m)) - k, 0.0)
    return Soft(top, l1, math.sqrt(square), float(y.times @ ((up - down) * y.size)), square + k * l1)


def _above(m: Array, s: float) -> tuple[Array, Array]:
    a = m / s
    p, density = ndtr(a), s * np.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
    return m * p + density, (m * m + s * s) * p + m * density
