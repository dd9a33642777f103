"""How often votes against lie far out along directions, from above: the information of the tail certificates (docs/theory.md).

For a family of directions fixed beforehand let P_k be the largest P(f = 0, e.u >= tau_k) over its directions e. It belongs to one
fixed e, whose count is at most the largest count, and Clopper-Pearson's upper bound grows with the count: no union over directions.
The K thresholds share the level. Known for nothing: P_k <= P_{k-1}, P_k <= P(f = 0) <= eps where q's own bound holds, and
P_k <= P(t >= tau_k). Every bound is rounded up. Where e.u is not quite known, a share `slack` of eps is added.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from ..kernels.arrays import Array
from .binomial import upper_probability


def tail_bounds(
    largest: npt.NDArray[np.int64], n: npt.NDArray[np.int64], eps: Array, thresholds: Array, level: float, slack: float = 0.0
) -> Array:
    """p_k >= P_k for all k together, except with probability `level`, shape (N, K).

    Args:
        largest: counts beyond each threshold, the largest over the family, shape (N, K).
        n: samples, shape (N,).
        eps: upper bounds of P(f = 0) from the same samples, shape (N,).
        thresholds: increasing, shape (K,).
        level: of the family's event.
        slack: P_k is at most what the counts estimate, and this times P(f = 0).
    """
    bound = upper_probability(largest, n[:, None], level / thresholds.size) + slack * eps[:, None]
    free = np.minimum(ndtr(-thresholds) * (1.0 + 1e-14), eps[:, None])
    return np.minimum.accumulate(np.minimum(bound, free), axis=1)
