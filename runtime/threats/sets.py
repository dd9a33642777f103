"""Threat models, and what each needs: (kappa, m1, m2) from bounds on the gradient y = E[u f] (sigma = 1 units throughout).

For delta in a subspace S with |delta|_p <= R: |delta|_2 <= kappa R and -delta.y <= R |P_S y|_p', p' dual to p. Of all such delta
the worst lie where both hold with equality, so with r = kappa R / sigma

    m1 = -upper(|P_S y|_p') / kappa,    m2 = max( sqrt(lower(|y|_2)^2 - m1^2), lower(|y - P_S y|_2) ),    R = sigma r / kappa.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..kernels.arrays import Array, Mask
from .projections import Projection, norm

DUAL = {1.0: "linf", 2.0: "l2", math.inf: "l1"}
ALL = "all"


@dataclass(frozen=True)
class Quantity:
    """A one-sided bound that a certificate rests on: `side` of the `norm` of the gradient's `part`.

    norm: l1, l2, linf; lp for the part's own exponent; dot for the component along a direction.
    """

    part: str
    norm: str
    side: str

    def __str__(self) -> str:
        return f"{self.side} {self.norm} of {self.part}"


LENGTH = Quantity(ALL, "l2", "lower")


@dataclass(frozen=True, eq=False)
class Ball:
    """All perturbations with |delta|_p <= R, 1 <= p <= inf."""

    name: str
    p: float
    mask: Mask | None = None
    """Coordinates that may change, in the input's shape; None for all of them."""
    basis: Array | None = None
    """Or a subspace: orthonormal vectors, shape (m, *input shape)."""

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
        """How many coordinates may change, of d."""
        return self.projection.coordinates(d)

    def kappa(self, d: int) -> float:
        """|delta|_2 <= kappa |delta|_p on this threat's subspace."""
        return math.pow(self.coordinates(d), max(0.0, 0.5 - 1.0 / self.p))

    def needs(self) -> tuple[Quantity, ...]:
        """The bounds this threat's radius uses, besides that of q."""
        upper = Quantity(self.part, DUAL.get(self.p, "lp"), "upper")
        if self.outside is not None:
            return (upper, LENGTH, Quantity(complement(self.name), "l2", "lower"))
        return (upper,) if self.part == ALL and self.p == 2.0 else (upper, LENGTH)

    def cut(self, bounds: Mapping[Quantity, Array], d: int) -> tuple[Array, Array]:
        """(m1, m2), both lower bounds, shape (N,)."""
        needs = self.needs()
        m1 = -bounds[needs[0]] / self.kappa(d)
        if len(needs) == 1:
            return m1, np.zeros_like(m1)
        m2 = across(bounds[LENGTH], m1)
        return m1, m2 if len(needs) == 2 else np.maximum(m2, bounds[needs[2]])


@dataclass(frozen=True, eq=False)
class Ray:
    """The perturbations r v, r >= 0, along one l2-unit vector."""

    name: str
    v: Array

    def kappa(self, d: int) -> float:
        """1: a radius along a ray is an l2 length."""
        return 1.0

    def needs(self) -> tuple[Quantity, ...]:
        """The gradient along v, and its length."""
        return (Quantity(self.name, "dot", "lower"), LENGTH)

    def cut(self, bounds: Mapping[Quantity, Array], d: int) -> tuple[Array, Array]:
        """(m1, m2), both lower bounds, shape (N,); where m1 > 0 the root may exceed |y - (v.y) v|, which only turns v away."""
        m1 = bounds[self.needs()[0]]
        return m1, across(bounds[LENGTH], m1)


Threat = Ball | Ray

L1 = Ball("l1", 1.0)
L2 = Ball("l2", 2.0)
LINF = Ball("linf", math.inf)


def across(length: Array, along: Array) -> Array:
    """sqrt(length^2 - along^2), 0 where that is not real, rounded down."""
    return np.sqrt(np.maximum((length - np.abs(along)) * (length + np.abs(along)), 0.0)) * (1.0 - 1e-15)


def complement(name: str) -> str:
    """Name of the part of the gradient outside the subspace `name`."""
    return f"all but {name}"


def projections(threats: Sequence[Threat]) -> dict[str, Projection]:
    """Part of the gradient -> how to take it."""
    out = {ALL: Projection()}
    for threat in threats:
        if isinstance(threat, Ray):
            out[threat.name] = Projection(vector=threat.v.ravel())
            continue
        if threat.part != ALL:
            out[threat.part] = threat.projection
        if threat.outside is not None:
            out[complement(threat.name)] = threat.outside
    return out


def check_shape(threats: Sequence[Threat], shape: tuple[int, ...]) -> None:
    """ValueError where a mask, basis or direction is not in the input's shape."""
    for threat in threats:
        seen = threat.v.shape if isinstance(threat, Ray) else None
        if isinstance(threat, Ball) and threat.mask is not None:
            seen = threat.mask.shape
        elif isinstance(threat, Ball) and threat.basis is not None:
            seen = threat.basis.shape[1:]
        if seen is not None and seen != shape:
            raise ValueError(f"threat {threat.name!r} has shape {seen}, the input has shape {shape}")


def containment(inner: Threat, outer: Threat, d: int) -> float:
    """The least f such that the inner set of size R lies in the outer one of size f R; inf where none is large enough."""
    if isinstance(outer, Ray):
        return math.inf
    if outer.basis is not None:
        own = None if isinstance(inner, Ray) else inner.basis
        if own is None or not np.array_equal(own, outer.basis):
            return math.inf
    if isinstance(inner, Ray):
        if outer.mask is not None and inner.v[~outer.mask].any():
            return math.inf
        return norm(inner.v.ravel(), outer.p)
    if outer.mask is not None:
        touched = inner.mask if inner.basis is None else inner.basis.any(axis=0)
        if touched is None or (touched & ~outer.mask).any():
            return math.inf
    inverse = (1.0 / outer.p) - (1.0 / inner.p)
    return float(inner.coordinates(d) ** max(0.0, inverse))
