"""The certified region in the plane of (t, s): its radius in every direction."""

from collections.abc import Sequence

import numpy as np

from certlut.kernels.arrays import Array

from .information import Information
from .radius import LIMIT, scan


def region(information: Information, angles: Sequence[float] | Array, limit: float = LIMIT) -> Array:
    """Radii along the rays at `angles` to the t axis, shape of `angles`, at most `limit`; sigma = 1.

    Where a scan does not converge its proved part counts: no radius is too large.

    Raises:
        ValueError: no classifier has the information.
    """
    return np.array([scan(information, float(angle), limit).radius for angle in angles])
