"""What noise is keyed by: streams of numbers of which any row can be drawn without those before it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..kernels.philox import Words

SELECTION, FIRST, SECOND = 0, 1, 2
# Planes of a stream's random bits: of grid noise two (grid.py), of Gaussian noise one (normals.py).
LEADING_BITS, OTHER_BITS, NORMALS = 0, 1, 2


@dataclass(frozen=True)
class Stream:
    """What the draws of one input and stage depend on: seed and index at least 0 and below 2^63, the stage below 4."""

    seed: int
    index: int
    stage: int

    @property
    def key(self) -> Words:
        """Of Philox: the seed's halves."""
        return np.array([self.seed % 2**32, self.seed >> 32], np.uint64)

    def counter(self, plane: int) -> Words:
        """What Philox counts from in a plane: two words, of which the first goes up; up to 2^60 calls later nothing overlaps."""
        return np.array([plane << 62 | self.stage << 60, self.index], np.uint64)


@dataclass(frozen=True)
class Segment:
    """Rows start to stop - 1 of the noise of (index, stage), for the input at place `slot` of a group."""

    slot: int
    index: int
    stage: int
    start: int
    stop: int


class Piece(NamedTuple):
    """The rows of one batch that belong to one segment."""

    segment: Segment
    rows: slice
