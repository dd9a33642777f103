"""What sampling would leave of an input, at expected values and without sampling: the statistics behind `certlut plan`.

A forecast, not a bound: it says what to expect of one model classifier, and a certificate never rests on it. The model is a
half-space seen through noise, f = 1{rho v.u + sqrt(1 - rho^2) e >= -z} with e standard normal, z = Phi^-1(q): E f = q and
y = E[u f] = rho phi(z) v. How |y|_1 and |y|_inf compare with |y|_2 is the gradient's shape (model.SHAPES).

Sums over samples take their expectations: a half mean of Z = u (f - b) is y plus normal noise of variance
s^2 = E (f - b)^2 over its number of samples in every coordinate, the largest coordinate is the median one. Bets:
bets.py; tails: tails.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr

from ..kernels.arrays import Array, Counts
from ..lookup.tail_format import THRESHOLDS
from ..sampling.stakes import chosen_b, vote_square
from ..statistics.summary import SCALARS, SUMS, Part, Statistics
from ..statistics.votes import Tail, none_counted
from ..threats.sets import Threat, projections
from .bets import expected_bets
from .model import LEAST, Gradient, Vote, deviation, gradient, largest
from .tails import largest_counts
from .thin import larger


def forecast(
    ns: Sequence[int],
    threats: Sequence[Threat],
    d: int,
    q: float,
    rho: float,
    n0: int = 100,
    shape: str = "normal",
    sigma: float = 1.0,
    cosine: float | None = None,
) -> Statistics:
    """Statistics of one model input at expected values, one row for each n.

    Args:
        ns: numbers of certification samples, at least 8.
        threats: balls without a basis, p = 1, 2 or inf: a mask is taken to hold its share of the gradient.
        d: numbers of an input.
        q: E f, above 1/2.
        rho: |y|_2 over its maximum phi(Phi^-1(q)), from 0 to 1.
        n0: selection samples, which b comes from.
        shape: of the gradient, in model.SHAPES.
        cosine: of a proposed direction with the gradient; None, or no gradient: votes propose.

    Raises:
        ValueError: an argument out of range.
    """
    _check(ns, threats, d, q, rho, n0, cosine)
    vote, cosine = Vote(q, rho), cosine if rho > 0.0 else None
    eps0 = min((round(n0 * vote.eps) + 0.5) / (n0 + 1.0), 0.5)
    b = chosen_b(eps0)
    wanted = projections(threats)
    ranks, whole = {name: projection.rank(d) for name, projection in wanted.items()}, rho * vote.rim
    gradients = {name: gradient(k, whole * math.sqrt(k / d), shape) for name, k in ranks.items()}
    halves = np.array([(n // 2, n - n // 2) for n in ns])
    along, thin = larger(gradients, whole, cosine, d)
    bets = [expected_bets(vote, n, gradients, ranks, eps0, b, cosine, along) for n in ns]
    parts = {}
    for name, projection in wanted.items():
        sums = [_sums(gradients[name], ranks[name], vote, b, *half) for half in halves]
        reaches = [np.column_stack((_reach(gradients[name], whole, cosines, d), thin[name])) for _, cosines in bets]
        rows = [one | made[name] | {"reach": reach} for one, (made, _), reach in zip(sums, bets, reaches, strict=True)]
        columns: dict[str, Any] = {scalar: np.stack([row[scalar] for row in rows]) for scalar in SCALARS}
        parts[name] = Part(**projection.identity(d)._asdict(), **columns)
    count, none = np.rint(q * halves).astype(np.int64), none_counted(len(ns))
    tails = _tails(threats, d, vote, gradients, ns, (halves - count).sum(axis=1))
    return Statistics(
        count=count,
        n=halves.astype(np.int64),
        b=np.full(len(ns), b),
        sigma=sigma,
        d=d,
        parts=parts,
        sums=np.empty((len(ns), 0)),
        classes=none,
        class_count=none,
        looks=np.zeros(len(ns), dtype=np.int64),
        selection=np.zeros_like(count),
        tails=tails,
        proposal={"by": "votes" if cosine is None else "gradient"},
    )


def _reach(y: Gradient, whole: float, cosines: Array, d: int) -> Array:
    """Part.reach of one row, but for `thin`: y's direction and, at right angles, one that is spread evenly; |y|_2 is `whole`."""
    out = []
    for cosine in cosines:
        size, across = y.size * (cosine / max(whole, LEAST)), deviation(cosine, d)
        image = Gradient(size, y.times)
        length = math.sqrt(image.l2**2 + float(y.times.sum()) * across**2)
        out.append((largest(image, across, np.zeros_like(size)), float(y.times @ folded(size, across)), length))
    return np.column_stack(out)


def folded(size: Array, deviation: float) -> Array:
    """Mean size of numbers of these sizes plus normal noise."""
    inside = size * (2.0 * ndtr(size / deviation) - 1.0)
    return np.asarray(inside + deviation * math.sqrt(2.0 / math.pi) * np.exp(-0.5 * (size / deviation) ** 2))


def _tails(
    threats: Sequence[Threat], d: int, vote: Vote, gradients: Mapping[str, Gradient], ns: Sequence[int], against: Counts
) -> dict[str, Tail]:
    """The families that the threats use, of so many votes against in all."""
    thresholds, out = np.array(THRESHOLDS), {}
    for by in filter(None, (threat.tails(d) for threat in threats)):
        counted = np.minimum(largest_counts(vote, gradients[by.name], ns, thresholds), against[:, None])
        out[by.name] = Tail(key=by.family.key, thresholds=thresholds, largest=counted)
    return out


def _check(ns: Sequence[int], threats: Sequence[Threat], d: int, q: float, rho: float, n0: int, cosine: float | None) -> None:
    if d < 1 or n0 < 1:
        raise ValueError(f"d = {d}, n0 = {n0}: expected 1 or more")
    if not 0.5 < q < 1.0:
        raise ValueError(f"q = {q}: expected 1/2 < q < 1")
    if not 0.0 <= rho <= 1.0:
        raise ValueError(f"rho = {rho}: expected 0 <= rho <= 1")
    if cosine is not None and not 0.0 < cosine <= 1.0:
        raise ValueError(f"cosine = {cosine}: expected 0 < cosine <= 1, or None where votes propose")
    if min(ns) < 8:
        raise ValueError(f"n = {min(ns)}: expected 8 samples or more")
    if any(not part.keeps_coordinates or part.largest or part.dual != 2.0 for part in projections(threats).values()):
        raise ValueError("a plan knows l1, l2, linf and masks of coordinates only")


def _sums(y: Gradient, rank: int, vote: Vote, b: float, n1: int, n2: int) -> dict[str, Any]:
    """The fields SUMS of a Part."""
    out = dict.fromkeys(SUMS, 0.0) | {"inner": y.l2**2, "inner_b": y.l2**2}
    for suffix, constant in (("", 0.5), ("_b", b)):
        deviation = math.sqrt(vote_square(constant, vote.eps) / (n1 + n2))
        out[f"l1{suffix}"] = float(y.times @ folded(y.size, deviation))
        out[f"linf{suffix}"] = largest(y, deviation, np.zeros_like(y.size))
    x_l2, pooled = (math.sqrt(y.l2**2 + rank * vote_square(b, vote.eps) / n) for n in (n1, n1 + n2))
    return out | {"x_l2_b": x_l2, "norm_b": pooled}
