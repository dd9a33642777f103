"""Families of directions, fixed before sampling, along which the votes against are counted (docs/tails.md)."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..kernels.arrays import Array, Mask
from ..kernels.covering import Covering

if TYPE_CHECKING:
    from .sets import Threat


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


class Tails(NamedTuple):
    """How tails certify a threat: a family of directions, by its name in the statistics, and what the rest of a shift may be."""

    name: str
    family: Family
    covering: Covering


def families(threats: "Iterable[Threat]", d: int) -> dict[str, Family]:
    """The families that the threats use, by name."""
    return {by.name: by.family for threat in threats if (by := threat.tails(d)) is not None}


def users(threats: "Iterable[Threat]", d: int) -> dict[str, tuple[str, ...]]:
    """The same families -> the names of the threats that use them."""
    found: dict[str, tuple[str, ...]] = {}
    for threat in threats:
        if (by := threat.tails(d)) is not None:
            found[by.name] = (*found.get(by.name, ()), threat.name)
    return found
