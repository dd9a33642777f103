"""Threat models, and what each needs: (kappa, m1, m2) from bounds on the gradient y = E[u f] (sigma = 1 units throughout).

For delta in a set S with size(delta) <= R: |delta|_2 <= kappa R and -delta.y <= R N(y), N the norm dual to the size on S. Of all
delta of such length and steepness the worst have both, so with r = kappa R / sigma

    m1 = -upper(N(y)) / kappa,    m2 = max( sqrt(lower(|y|_2)^2 - m1^2), lower(|y - P_S y|_2) ),    R = sigma r / kappa.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..kernels.arrays import Array, Mask
from ..kernels.covering import Covering
from .families import Family, Tails
from .nets import net
from .projections import Projection

DUAL = {1.0: "linf", 2.0: "l2", math.inf: "l1"}
ALL = "all"
# Of a mask in lp, p >= 2, and of a span: the largest that tails are used for.
LARGEST_MASK, LARGEST_SPAN = 8, 3


@dataclass(frozen=True)
class Quantity:
    """A one-sided bound that a certificate rests on: `side` of the `norm` of the gradient's `part`.

    norm: l1, l2, linf; lp for the part's own exponent; sparse for the l2 norm of its largest coordinates, as many as the part says;
    dot for the component along a direction, abs for that component's size.
    """

    part: str
    norm: str
    side: str

    def __str__(self) -> str:
        return f"{self.side} {self.norm} of {self.part}"


LENGTH = Quantity(ALL, "l2", "lower")


class Threat(ABC):
    """A set of perturbations that grows with its size R in input units. Its kinds are frozen dataclasses of what is stored."""

    name: str
    """Of its column `radius_<name>` in the results."""
    kind: ClassVar[str]
    """In a statistics file."""

    @property
    @abstractmethod
    def exponent(self) -> float:
        """The size of a perturbation is its p-norm."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...] | None:
        """Of the inputs it is declared for; None for any."""

    @property
    @abstractmethod
    def touched(self) -> Mask | None:
        """Coordinates that any of its perturbations may change; None for all."""

    @property
    def span(self) -> Array | None:
        """Orthonormal vectors whose span it is given by, shape (m, *input shape); None for other sets."""
        return None

    @abstractmethod
    def coordinates(self, d: int) -> int:
        """How many coordinates, of d, one perturbation may change at most."""

    @abstractmethod
    def longest(self, p: float, d: int) -> float:
        """The largest |delta|_p of its perturbations of size 1."""

    @abstractmethod
    def holds(self, inner: "Threat", d: int) -> bool:
        """Whether every perturbation of `inner` is one of this, of whatever size."""

    @abstractmethod
    def parts(self) -> dict[str, Projection]:
        """The parts of the gradient that it needs besides the whole, and how to take them."""

    @abstractmethod
    def needs(self) -> tuple[Quantity, ...]:
        """The bounds its radius uses besides that of q: N(y) (or the gradient along it), then |y|_2, then |y - P_S y|_2."""

    def kappa(self, d: int) -> float:
        """|delta|_2 <= kappa size(delta)."""
        return self.longest(2.0, d)

    def cut(self, bounds: Mapping[Quantity, Array], d: int) -> tuple[Array, Array]:
        """(m1, m2), both lower bounds, shape (N,)."""
        along, *rest = self.needs()
        m1 = -bounds[along] / self.kappa(d)
        if not rest:
            return m1, np.zeros_like(m1)
        m2 = across(bounds[LENGTH], m1)
        return m1, np.maximum(m2, bounds[rest[1]]) if len(rest) > 1 else m2

    def queries(self, bounds: Mapping[Quantity, Array], d: int) -> Iterator[tuple[Array, Array]]:
        """(m1, m2) to look up, each of them valid: the best radius counts."""
        yield self.cut(bounds, d)

    def tails(self, d: int) -> Tails | None:
        """How tails certify it; None where they would not pay."""
        return None

    def settings(self) -> float | str | None:
        """What tells it from another threat with the same parts, as JSON; None where the parts tell."""
        return None

    def describe(self) -> dict[str, Any]:
        """Its fields besides the name, numbers and arrays: its class gives the threat again from them."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Ball(Threat):
    """All perturbations with |delta|_p <= R, 1 <= p <= inf."""

    kind = "ball"
    name: str
    p: float
    mask: Mask | None = None
    """Coordinates that may change, in the input's shape; None for all of them."""
    basis: Array | None = None
    """Or a subspace: orthonormal vectors, shape (m, *input shape)."""

    @property
    def exponent(self) -> float:
        """P itself."""
        return self.p

    @property
    def span(self) -> Array | None:
        """The basis."""
        return self.basis

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The mask's or the basis'."""
        if self.mask is not None:
            return self.mask.shape
        return None if self.basis is None else self.basis.shape[1:]

    @property
    def touched(self) -> Mask | None:
        """What the mask has, or a vector of the basis."""
        return self.mask if self.basis is None else np.asarray(self.basis.any(axis=0))

    @cached_property
    def part(self) -> str:
        """The part of the gradient whose norm counts."""
        return ALL if self.mask is None and self.basis is None and self.p in DUAL else self.name

    @cached_property
    def projection(self) -> Projection:
        """How to take that part."""
        dual = 2.0 if self.p in DUAL else self.p / (self.p - 1.0)
        if self.basis is not None:
            return Projection(basis=self.basis.reshape(len(self.basis), -1).T.copy(), dual=dual)
        return Projection(mask=None if self.mask is None else self.mask.ravel(), dual=dual)

    @cached_property
    def outside(self) -> Projection | None:
        """The rest of the gradient; None where the ball has all coordinates."""
        if self.basis is not None:
            d = self.basis[0].size
            return None if len(self.basis) == d else Projection(basis=self.projection.basis, outside=True)
        return None if self.mask is None or self.mask.all() else Projection(mask=~self.mask.ravel())

    def coordinates(self, d: int) -> int:
        """All that it touches."""
        return self.projection.coordinates(d)

    def longest(self, p: float, d: int) -> float:
        """Attained at an axis or at a corner of the cube."""
        return float(self.coordinates(d) ** max(0.0, (1.0 / p) - (1.0 / self.p)))

    def holds(self, inner: Threat, d: int) -> bool:
        """A span holds nothing but its own vectors."""
        if self.basis is not None:
            return same_span(inner.span, self.basis)
        if self.mask is None:
            return True
        return inner.touched is not None and not (inner.touched & ~self.mask).any()

    def parts(self) -> dict[str, Projection]:
        """Its own part, unless it is a norm of the whole that is known anyway, and the rest."""
        along = {} if self.part == ALL else {self.part: self.projection}
        return along if self.outside is None else along | {complement(self.name): self.outside}

    def needs(self) -> tuple[Quantity, ...]:
        """The dual norm from above; in l2 all of the gradient is along the worst perturbation."""
        upper = Quantity(self.part, DUAL.get(self.p, "lp"), "upper")
        if self.outside is not None:
            return (upper, LENGTH, Quantity(complement(self.name), "l2", "lower"))
        return (upper,) if self.part == ALL and self.p == 2.0 else (upper, LENGTH)

    def tails(self, d: int) -> Tails | None:
        """Along axes where few coordinates carry a shift (p < 2, or a small mask); along a net of directions of a small span."""
        if self.basis is not None:
            if len(self.basis) > LARGEST_SPAN or self.p != 2.0:
                return None
            directions = net(len(self.basis))
            vectors = directions.embed(self.basis).reshape(len(directions.directions), -1)
            return Tails(self.name, Family(vectors=vectors), Covering.net(directions.gap))
        if self.p >= 2.0 and self.coordinates(d) > LARGEST_MASK:
            return None
        name, mask = (ALL, None) if self.mask is None else (self.name, self.mask.ravel())
        return Tails(name, Family(mask=mask), Covering.lp(self.p, self.coordinates(d)))

    def settings(self) -> float | str | None:
        """The exponent."""
        return self.p if math.isfinite(self.p) else "inf"


L1 = Ball("l1", 1.0)
L2 = Ball("l2", 2.0)
LINF = Ball("linf", math.inf)


def across(length: Array, along: Array) -> Array:
    """sqrt(length^2 - along^2), 0 where that is not real, rounded down."""
    return np.sqrt(np.maximum((length - np.abs(along)) * (length + np.abs(along)), 0.0)) * (1.0 - 1e-15)


def same_span(first: Array | None, second: Array | None) -> bool:
    """Whether both are one basis, or one vector and its opposite."""
    if first is None or second is None:
        return False
    return np.array_equal(first, second) or (len(first) == 1 and np.array_equal(-first, second))


def complement(name: str) -> str:
    """Name of the part of the gradient outside the subspace `name`."""
    return f"all but {name}"


def projections(threats: Sequence[Threat]) -> dict[str, Projection]:
    """Part of the gradient -> how to take it."""
    out = {ALL: Projection()}
    for threat in threats:
        out |= threat.parts()
    return out


def check_shape(threats: Sequence[Threat], shape: tuple[int, ...]) -> None:
    """ValueError where a mask, basis or direction is not in the input's shape."""
    for threat in threats:
        if threat.shape not in (None, shape):
            raise ValueError(f"threat {threat.name!r} has shape {threat.shape}, the input has shape {shape}")


def containment(inner: Threat, outer: Threat, d: int) -> float:
    """The least f such that the inner set of size R lies in the outer one of size f R; inf where none is large enough."""
    return inner.longest(outer.exponent, d) if outer.holds(inner, d) else math.inf
