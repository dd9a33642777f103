"""Threats along one vector: a ray (one way), a line (both ways)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..kernels.arrays import Array, Mask
from ..kernels.covering import Covering
from .families import Family, Tails
from .projections import Projection, norm
from .sets import LENGTH, Quantity, Threat, across, complement, same_span


@dataclass(frozen=True, eq=False)
class _Along(Threat):
    """Perturbations along one l2-unit vector."""

    name: str
    v: Array

    exponent = 2.0

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The vector's."""
        return self.v.shape

    @property
    def touched(self) -> Mask | None:
        """Where the vector is not 0."""
        return np.asarray(self.v != 0.0)

    def coordinates(self, d: int) -> int:
        """All that it touches."""
        return int(np.count_nonzero(self.v))

    def longest(self, p: float, d: int) -> float:
        """The vector's p-norm."""
        return norm(self.v.ravel(), p)

    def kappa(self, d: int) -> float:
        """1: a radius along a vector is an l2 length."""
        return 1.0

    def tails(self, d: int) -> Tails | None:
        """Along the vector itself."""
        return Tails(self.name, Family(vectors=self.v.reshape(1, -1)), Covering.line())

    def parts(self) -> dict[str, Projection]:
        """The component along the vector."""
        return {self.name: Projection(vector=self.v.ravel())}


@dataclass(frozen=True, eq=False)
class Ray(_Along):
    """The perturbations r v, r >= 0, along one l2-unit vector."""

    kind = "ray"

    def holds(self, inner: Threat, d: int) -> bool:
        """A ray is given no other threat's radius."""
        return False

    def needs(self) -> tuple[Quantity, ...]:
        """The gradient along v, with its sign, and its length."""
        return (Quantity(self.name, "dot", "lower"), LENGTH)

    def cut(self, bounds: Mapping[Quantity, Array], d: int) -> tuple[Array, Array]:
        """(m1, m2), both lower bounds, shape (N,); where m1 > 0 the root may exceed |y - (v.y) v|, which only turns v away."""
        m1 = bounds[self.needs()[0]]
        return m1, across(bounds[LENGTH], m1)

    def queries(self, bounds: Mapping[Quantity, Array], d: int) -> Iterator[tuple[Array, Array]]:
        """Toward the gradient, near the rim, the table may say more with less, which is as valid: m1 and m2 are lower bounds."""
        m1, m2 = self.cut(bounds, d)
        yield m1, m2
        for share1, share2 in ((1.0, 0.0), (0.0, 1.0), (0.99, 0.99), (0.97, 0.97), (0.9, 0.9)):
            yield np.minimum(m1, share1 * m1), share2 * m2


@dataclass(frozen=True, eq=False)
class Line(_Along):
    """The perturbations r v of either sign of r, |r| <= R, along one l2-unit vector: a subspace of one dimension."""

    kind = "line"

    @property
    def span(self) -> Array | None:
        """Its vector alone."""
        return self.v[None]

    def holds(self, inner: Threat, d: int) -> bool:
        """What lies along the same vector or its opposite."""
        return same_span(inner.v[None] if isinstance(inner, Ray) else inner.span, self.span)

    def parts(self) -> dict[str, Projection]:
        """The component along the vector, and the rest."""
        outside = Projection(basis=self.v.reshape(-1, 1), outside=True)
        return super().parts() | ({} if self.v.size == 1 else {complement(self.name): outside})

    def needs(self) -> tuple[Quantity, ...]:
        """The size of the gradient along v from above, as of any subspace."""
        along = (Quantity(self.name, "abs", "upper"), LENGTH)
        return along if self.v.size == 1 else (*along, Quantity(complement(self.name), "l2", "lower"))

    def tails(self, d: int) -> Tails | None:
        """Along the vector and its opposite."""
        vector = self.v.reshape(1, -1)
        return Tails(self.name, Family(vectors=np.concatenate([vector, -vector])), Covering.line())

    def settings(self) -> float | str | None:
        """Tells it from a ray."""
        return "line"
