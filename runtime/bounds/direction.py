"""What w.y says of the gradient y = E[u f], for a unit vector w that was fixed before the samples. No term depends on d.

Let |w|_2 = 1, mu = w.y >= low, |y|_2 <= U.

Length: |y|_2 >= |mu|. Of a projection P y the same holds with w in the image of P, of the sum of orthogonal parts by Pythagoras.

Dual norm: |P y|_p' is the largest delta.y over delta in the image of P with |delta|_p <= 1; these have |delta|_2 <= kappa, and
c = delta.w = delta.(P w) has |c| <= beta = |P w|_p' (Hoelder). Across w, y is at most Y = sqrt(U^2 - mu^2) long and delta at most
sqrt(kappa^2 - c^2), so delta.y <= c mu + sqrt(kappa^2 - c^2) Y: with c = kappa cos s and |mu| = U cos t at most kappa U cos(s - t).
For s >= arccos(beta / kappa) and t <= arccos(mu0 / U), mu0 = low cut to [0, U], that is largest at both ends, or where s = t:

    |P y|_p' <= N = beta mu0 + sqrt(kappa^2 - beta^2) sqrt(U^2 - mu0^2)    if beta U <= kappa mu0, else kappa U.             (1)

No y that the bounds allow has a smaller one for p = 1, 2 and inf: some delta with |delta|_2 = kappa has delta.w = beta.

Rounding. N is nondecreasing in beta, kappa and U and nonincreasing in mu0, so each is taken from its safe side; the two cases meet
with equal slopes. A w of float64 has |w|_2 within SLACK of 1.
"""

import numpy as np
import numpy.typing as npt

from ..threats.projections import Projection, norm

Array = npt.NDArray[np.float64]

# A sum of d < 10^9 squares, in any order, is this good.
SLACK = 1e-12
ULP = 2.0**-52


def length(low: npt.ArrayLike, high: npt.ArrayLike = np.inf) -> Array:
    """Lower bound of |y|_2, or of |P y|_2 where w = P w, from low <= w.y <= high; NaN says nothing."""
    low, high = (np.asarray(a, dtype=np.float64) for a in (low, high))
    return np.asarray(np.fmax(np.fmax(low, -high), 0.0) * (1.0 - SLACK))


def joint(inside: npt.ArrayLike, outside: npt.ArrayLike) -> Array:
    """Lower bound of |y|_2 from those of |P y|_2 and |y - P y|_2."""
    return np.asarray(np.hypot(inside, outside) * (1.0 - 4.0 * ULP))


def reach(w: Array, by: Projection, dual: float) -> float:
    """beta = |P w|_p', rounded up."""
    return norm(by(w), dual) * (1.0 + SLACK)


def dual_norm(low: npt.ArrayLike, upper: npt.ArrayLike, beta: npt.ArrayLike, kappa: npt.ArrayLike) -> Array:
    """N of (1), an upper bound of |P y|_p'; arrays broadcast.

    Args:
        low: lower bound of w.y; below 0 it says nothing.
        upper: U >= 0, finite.
        beta: `reach` of w.
        kappa: |delta|_2 <= kappa |delta|_p in the image of P.
    """
    low, U, beta, kappa = (np.asarray(a, dtype=np.float64) for a in (low, upper, beta, kappa))
    mu, beta = np.minimum(length(low), U), np.minimum(beta, kappa)
    across = np.sqrt((kappa - beta) * (kappa + beta)) * np.sqrt((U - mu) * (U + mu))
    both = np.minimum(beta * mu + across, kappa * U)
    return np.asarray(np.where(beta * U <= kappa * mu, both, kappa * U) * (1.0 + 8.0 * ULP))
