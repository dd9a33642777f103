"""Families of directions, fixed before sampling, along which the votes against are counted (docs/theory.md, tails)."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Family:
    """The signed axes +-e_j of a mask's coordinates (of all where nothing is set), or the unit rows of `vectors`, each as it is."""

    mask: Mask | None = None
    """Flat, shape (d,)."""
    vectors: Array | None = None
    """Shape (m, d)."""

    @property
    def key(self) -> str:
        """Identifies it, so that counts along one family are not taken for another's of the same name; empty for all axes."""
        array = self.mask if self.vectors is None else self.vectors
        if array is None:
            return ""
        head = f"{array.dtype.str} {array.shape} ".encode()
        return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
