"""The larger coordinates of a proposal (bets.THIN) at expected values.

Coordinates of a proposal w are taken for normal numbers around what w has along y, what it has across y spread evenly over them.
Of X ~ N(m, s^2) soft-thresholded at k, a = (m - k) / s, the part above k has the means

    E (X - k)+ = (m - k) Phi(a) + s phi(a),    E (X - k)+^2 = ((m - k)^2 + s^2) Phi(a) + (m - k) s phi(a).
"""

import math
from collections.abc import Mapping
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


def larger(
    gradients: Mapping[str, Gradient], whole: float, cosine: float | None, d: int
) -> tuple[tuple[float, float], dict[str, Array]]:
    """(v.y, v.w), v along t of the whole gradient, which is the first part; and for each part what norms (REACHES) v has in it."""
    if cosine is None:
        return (0.0, 0.0), dict.fromkeys(gradients, np.zeros(3))
    found = {name: soft(y, whole, cosine, d) for name, y in gradients.items()}
    t = next(iter(found.values()))
    return (t.along_y / t.l2, t.along_w / t.l2), {name: np.array([one.linf, one.l1, one.l2]) / t.l2 for name, one in found.items()}


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
