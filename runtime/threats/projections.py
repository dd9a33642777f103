"""Parts of the gradient: all of it, the coordinates of a mask, the span of a basis or what lies outside it, one direction."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..kernels.arrays import Array, Mask


def norm(x: Array, p: float) -> float:
    """|x|_p, 1 <= p <= inf, of a vector; 0 for none. Unlike numpy.linalg.norm it does not vanish where x^p underflows."""
    largest = float(np.abs(x).max(initial=0.0))
    return largest * float(np.linalg.norm(x / largest, p)) if largest > 0.0 else 0.0


class Identity(NamedTuple):
    """By which statistics of a part are known again."""

    d: int
    """Dimension of the image."""
    coordinates: int
    """Coordinates it touches."""
    dual: float
    largest: int
    key: str


@dataclass(frozen=True, eq=False)
class Projection:
    """An orthogonal projection P of R^d; the identity where nothing is set. At most one of mask, basis and vector is."""

    mask: Mask | None = None
    """Flat, shape (d,): the coordinates that are kept."""
    basis: Array | None = None
    """Orthonormal columns, shape (d, m)."""
    outside: bool = False
    """Project on the complement of the basis' span."""
    vector: Array | None = None
    """A unit vector, shape (d,)."""
    dual: float = 2.0
    """An exponent p' besides 1, 2 and inf whose norm |P y|_p' is wanted; 2 for none."""
    largest: int = 0
    """Or the l2 norm of so many coordinates of P y, the largest ones, is wanted; 0 for none."""

    def __call__(self, x: Array) -> Array:
        """P x in the coordinates whose p-norms matter, shape (d,) -> (coordinates,); along a vector its one component."""
        if self.mask is not None:
            return x[self.mask]
        return np.array([self.vector @ x]) if self.vector is not None else self.embed(x)

    def embed(self, x: Array) -> Array:
        """P x as a vector of R^d."""
        if self.mask is not None:
            return np.where(self.mask, x, 0.0)
        if self.vector is not None:
            return np.asarray(self.vector * (self.vector @ x))
        if self.basis is not None:
            inside = self.basis @ (self.basis.T @ x)
            return np.asarray(x - inside if self.outside else inside)
        return x

    def norm(self, x: Array) -> float:
        """The norm of P x that `largest` or `dual` asks for."""
        image = self(x)
        if self.largest:
            image = np.sort(np.abs(image))[-self.largest :]
        return norm(image, self.dual)

    def identity(self, d: int) -> Identity:
        """For inputs of d numbers."""
        return Identity(self.rank(d), self.coordinates(d), self.dual, self.largest, self.key)

    def rank(self, d: int) -> int:
        """Dimension of the image."""
        if self.mask is not None:
            return int(self.mask.sum())
        if self.basis is not None:
            size: int = self.basis.shape[1]
            return d - size if self.outside else size
        return d if self.vector is None else 1

    def coordinates(self, d: int) -> int:
        """How many coordinates the image touches: |P y|_1 <= sqrt(coordinates) |P y|_2."""
        if self.basis is not None:
            return d if self.outside else int(np.count_nonzero(self.basis.any(axis=1)))
        return self.rank(d)

    @property
    def keeps_coordinates(self) -> bool:
        """Whether the image's numbers are coordinates of the vector itself."""
        return self.basis is None and self.vector is None

    @property
    def size(self) -> int | None:
        """d, where this projection fixes it."""
        array = next((a for a in (self.mask, self.basis, self.vector) if a is not None), None)
        return None if array is None else len(array)

    @property
    def key(self) -> str:
        """Identifies it, so that statistics of one part are not taken for another's of the same name; empty for the identity."""
        array = next((a for a in (self.mask, self.basis, self.vector) if a is not None), None)
        text = "" if self.dual == 2.0 else f"dual {self.dual!r} "
        text += f"largest {self.largest} " if self.largest else ""
        if array is None:
            return text
        digest = hashlib.sha256(f"{array.dtype.str} {array.shape} {self.outside} ".encode() + np.ascontiguousarray(array).tobytes())
        return text + digest.hexdigest()[:32]
