"""Threat models, and what each needs: (kappa, m1, m2) from bounds on the gradient y = E[u f] (sigma = 1 units throughout).

For delta in a subspace S with |delta|_p <= R: |delta|_2 <= kappa R and -delta.y <= R |P_S y|_p', p' dual to p. Of all such delta
the worst lie where both hold with equality, so with r = kappa R / sigma

    m1 = -upper(|P_S y|_p') / kappa,    m2 = max( sqrt(lower(|y|_2)^2 - m1^2), lower(|y - P_S y|_2) ),    R = sigma r / kappa.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .projections import Projection, norm

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

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


def Lp(p: float, name: str | None = None) -> Ball:
    """Perturbations with |delta|_p <= R, 1 <= p <= inf; `name`, by default l<p>, heads its column of the results.

    Raises:
        ValueError: p < 1 or NaN.
    """
    p = _exponent(f"Lp({p})", p)
    known = {1.0: L1, 2.0: L2, math.inf: LINF}
    if name is None and p in known:
        return known[p]
    return Ball(_free_name(name or f"l{p:g}"), p)


def Subspace(
    mask: npt.ArrayLike | None = None, p: float = 2, name: str = "subspace", *, basis: npt.ArrayLike | None = None
) -> Ball:
    """Perturbations inside a subspace, |delta|_p <= R: the coordinates where `mask` is true, or the span of `basis`.

    Args:
        mask: boolean, in the input's shape (for one colour channel: `mask[0] = True` on a (3, h, w) array).
        p: 1 <= p <= inf.
        name: column `radius_<name>` of the results.
        basis: orthonormal vectors in the input's shape, shape (m, *shape).

    Raises:
        ValueError: not exactly one of mask and basis, an empty or non-boolean mask, a basis that is not orthonormal, p < 1, a name
            that is taken.
    """
    p = _exponent(f"subspace {name!r}", p)
    if (mask is None) == (basis is None):
        raise ValueError(f"subspace {name!r}: expected a mask or a basis, and not both")
    if basis is not None:
        vectors = np.array(basis, dtype=np.float64)
        flat = vectors.reshape(len(vectors), -1) if vectors.ndim > 1 and len(vectors) else np.empty((0, 0))
        if not flat.size or len(flat) > flat.shape[1] or not np.isfinite(flat).all():
            raise ValueError(
                f"subspace {name!r}: basis of shape {vectors.shape}, expected 1 to d finite vectors, (m, *input shape)"
            )
        if (error := float(np.abs(flat @ flat.T - np.eye(len(flat))).max())) > 1e-9:
            raise ValueError(f"subspace {name!r}: the basis is not orthonormal (off by {error:.1e}); numpy.linalg.qr makes one")
        # As orthonormal as float64 allows.
        q, r = np.linalg.qr(flat.T)
        # No rounding where no vector has anything: these coordinates do not change.
        q[~flat.any(axis=0)] = 0.0
        return Ball(_free_name(name), p, basis=(q * np.sign(np.diag(r))).T.reshape(vectors.shape))
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise ValueError(f"subspace {name!r}: mask has dtype {array.dtype}, expected bool")
    if not array.any():
        raise ValueError(f"subspace {name!r}: the mask selects no coordinate")
    return Ball(_free_name(name), p, array.copy())


def Direction(v: npt.ArrayLike, name: str = "direction") -> Ray:
    """The ray x + r v, r >= 0; `v` in the input's shape, any length (it is normalised). ValueError for a zero or non-finite v."""
    array = np.asarray(v, dtype=np.float64)
    size = float(np.abs(array).max(initial=0.0))
    if not (math.isfinite(size) and size > 0.0):
        raise ValueError(f"direction {name!r}: largest component {size}, expected a finite vector other than 0")
    array = array / size
    return Ray(_free_name(name), array / np.linalg.norm(array))


def _exponent(what: str, p: float) -> float:
    if not float(p) >= 1.0:
        raise ValueError(f"{what}: p = {p}, expected 1 <= p <= inf")
    return float(p)


def _free_name(name: str) -> str:
    if name in ("l1", "l2", "linf", "cohen", ALL) or not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"threat name {name!r}: expected a letter or digit, then also . + - _; not l1, l2, linf, cohen or {ALL}")
    return name


def resolve(threats: Sequence[str | Threat]) -> tuple[Threat, ...]:
    """Threats by name or object, "l2" always among them. ValueError for an unknown or repeated name."""
    known = {"l1": L1, "l2": L2, "linf": LINF}
    out: list[Threat] = []
    for threat in threats:
        if isinstance(threat, str):
            if threat not in known:
                raise ValueError(
                    f"threat {threat!r}: expected l1, l2, linf, or an Lp, Subspace or Direction (on the command line lp:P, "
                    "NAME=mask:FILE, NAME=basis:FILE or NAME=direction:FILE)"
                )
            threat = known[threat]
        out.append(threat)
    if all(threat.name != L2.name for threat in out):
        out.append(L2)
    names = [threat.name for threat in out]
    if len(set(names)) < len(names):
        raise ValueError(f"threats {', '.join(names)}: every name must be there once only")
    return tuple(out)


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
