"""Threat models, and what each needs: (kappa, m1, m2) from bounds on the gradient y = E[u f] (sigma = 1 units throughout).

For delta in a coordinate subspace S with |delta|_p <= R: |delta|_2 <= kappa R and -delta.y <= R |P_S y|_p', p' dual to p. Of all
such delta the worst lie where both hold with equality, so with r = kappa R / sigma

    m1 = -upper(|P_S y|_p') / kappa,    m2 = max( sqrt(lower(|y|_2)^2 - m1^2), lower(|y - P_S y|_2) ),    R = sigma r / kappa.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DUAL = {1.0: "linf", 2.0: "l2", math.inf: "l1"}
ALL = "all"


@dataclass(frozen=True)
class Quantity:
    """A one-sided bound that a certificate rests on: `side` of the `norm` of the gradient's `part`."""

    part: str
    norm: str
    side: str

    def __str__(self) -> str:
        return f"{self.side} {self.norm} of {self.part}"


LENGTH = Quantity(ALL, "l2", "lower")


@dataclass(frozen=True, eq=False)
class Ball:
    """All perturbations with |delta|_p <= R, p in {1, 2, inf}."""

    name: str
    p: float
    mask: Mask | None = None
    """Coordinates that may change, in the input's shape; None for all of them."""

    def coordinates(self, d: int) -> int:
        """How many coordinates may change, of d."""
        return d if self.mask is None else int(self.mask.sum())

    def kappa(self, d: int) -> float:
        """|delta|_2 <= kappa |delta|_p on this threat's subspace."""
        return math.sqrt(self.coordinates(d)) if self.p == math.inf else 1.0

    def needs(self) -> tuple[Quantity, ...]:
        """The bounds this threat's radius uses, besides that of q."""
        part = ALL if self.mask is None else self.name
        upper = Quantity(part, DUAL[self.p], "upper")
        if self.mask is None:
            return (upper,) if self.p == 2.0 else (upper, LENGTH)
        if self.mask.all():
            return (upper, LENGTH)
        return (upper, LENGTH, Quantity(complement(self.name), "l2", "lower"))

    def cut(self, bounds: Mapping[Quantity, Array], d: int) -> tuple[Array, Array]:
        """(m1, m2), both lower bounds, shape (N,)."""
        needs = self.needs()
        m1 = -bounds[needs[0]] / self.kappa(d)
        if len(needs) == 1:
            return m1, np.zeros_like(m1)
        m2 = np.sqrt(np.maximum(bounds[LENGTH] ** 2 - m1**2, 0.0))
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
        return m1, np.sqrt(np.maximum(bounds[LENGTH] ** 2 - m1**2, 0.0))


Threat = Ball | Ray

L1 = Ball("l1", 1.0)
L2 = Ball("l2", 2.0)
LINF = Ball("linf", math.inf)


def complement(name: str) -> str:
    """Name of the part of the gradient outside the subspace `name`."""
    return f"all but {name}"


def Subspace(mask: npt.ArrayLike, p: float = 2, name: str = "subspace") -> Ball:
    """Perturbations that touch only the coordinates where `mask` is true, |delta|_p <= R.

    Args:
        mask: boolean, in the input's shape (for one colour channel: `mask[0] = True` on a (3, h, w) array).
        p: 1, 2 or inf.
        name: column `radius_<name>` of the results.

    Raises:
        ValueError: an empty or non-boolean mask, another p, a name that is taken.
    """
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise ValueError(f"subspace {name!r}: mask has dtype {array.dtype}, expected bool")
    if not array.any():
        raise ValueError(f"subspace {name!r}: the mask selects no coordinate")
    if float(p) not in DUAL:
        raise ValueError(f"subspace {name!r}: p = {p}, expected 1, 2 or inf")
    return Ball(_free_name(name), float(p), array.copy())


def Direction(v: npt.ArrayLike, name: str = "direction") -> Ray:
    """The ray x + r v, r >= 0; `v` in the input's shape, any length (it is normalised). ValueError for a zero or non-finite v."""
    array = np.asarray(v, dtype=np.float64)
    size = float(np.abs(array).max(initial=0.0))
    if not (math.isfinite(size) and size > 0.0):
        raise ValueError(f"direction {name!r}: largest component {size}, expected a finite vector other than 0")
    array = array / size
    return Ray(_free_name(name), array / np.linalg.norm(array))


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
                raise ValueError(f"threat {threat!r}: expected l1, l2, linf, Subspace(...) or Direction(...)")
            threat = known[threat]
        out.append(threat)
    if all(threat.name != L2.name for threat in out):
        out.append(L2)
    names = [threat.name for threat in out]
    if len(set(names)) < len(names):
        raise ValueError(f"threats {', '.join(names)}: every name must be there once only")
    return tuple(out)


def projections(threats: Sequence[Threat]) -> dict[str, Mask | Array | None]:
    """Part of the gradient -> how to take it: None for all of it, a flat mask, or a flat unit vector."""
    out: dict[str, Mask | Array | None] = {ALL: None}
    for threat in threats:
        if isinstance(threat, Ray):
            out[threat.name] = threat.v.ravel()
        elif threat.mask is not None:
            out[threat.name] = threat.mask.ravel()
            if not threat.mask.all():
                out[complement(threat.name)] = ~threat.mask.ravel()
    return out


def projection_key(by: Mask | Array | None) -> str:
    """Identifies a projection, so that statistics of one mask or direction are not taken for another's of the same name."""
    return "" if by is None else hashlib.sha256(f"{by.dtype.str} {by.size} ".encode() + by.tobytes()).hexdigest()[:32]


def check_shape(threats: Sequence[Threat], shape: tuple[int, ...]) -> None:
    """ValueError where a mask or direction is not in the input's shape."""
    for threat in threats:
        array = threat.mask if isinstance(threat, Ball) else threat.v
        if array is not None and array.shape != shape:
            raise ValueError(f"threat {threat.name!r} has shape {array.shape}, the input has shape {shape}")


def containment(inner: Threat, outer: Threat, d: int) -> float:
    """The least f such that the inner set of size R lies in the outer one of size f R; inf where none is large enough."""
    if isinstance(outer, Ray):
        return math.inf
    if isinstance(inner, Ray):
        if outer.mask is not None and inner.v[~outer.mask].any():
            return math.inf
        return float(np.linalg.norm(inner.v.ravel(), outer.p))
    if outer.mask is not None and (inner.mask is None or (inner.mask & ~outer.mask).any()):
        return math.inf
    inverse = (1.0 / outer.p) - (1.0 / inner.p)
    return float(inner.coordinates(d) ** max(0.0, inverse))
