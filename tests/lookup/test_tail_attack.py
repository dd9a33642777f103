"""Certified balls attacked: classifiers with exact votes and exact tails, built to hurt; no shift inside may lose the vote."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certlut.kernels.covering import Covering
from certlut.lookup.tail_format import THRESHOLDS
from certlut.lookup.tails import TailTable
from reference import naive_tails as naive

TAU = np.array(THRESHOLDS)
Array = np.ndarray


@dataclass(frozen=True)
class Boxes:
    """Votes against where u lies in one of some disjoint boxes; coordinates beyond the boxes' own do not matter."""

    low: Array
    """Shape (boxes, coordinates)."""
    high: Array

    @property
    def size(self) -> int:
        return self.low.shape[1]

    def votes(self, shifts: Array) -> Array:
        """Share of votes against at shifts of shape (n, coordinates)."""
        inside = ndtr(self.high - shifts[:, None]) - ndtr(self.low - shifts[:, None])
        return np.asarray(inside.prod(axis=2).sum(axis=1))

    def tails(self, d: int) -> tuple[float, Array]:
        """(eps, the largest P(against, e.u >= tau) over e = +-e_j, j = 1..d), exact."""
        inside = ndtr(self.high) - ndtr(self.low)
        eps = float(inside.prod(axis=1).sum())
        found = [eps * ndtr(-TAU)] if d > self.size else []
        for j in range(self.size):
            others = np.delete(inside, j, axis=1).prod(axis=1)[:, None]
            low, high = self.low[:, [j]], self.high[:, [j]]
            up = np.maximum(ndtr(-np.maximum(low, TAU)) - ndtr(-np.maximum(high, TAU)), 0.0)
            down = np.maximum(ndtr(np.minimum(high, -TAU)) - ndtr(np.minimum(low, -TAU)), 0.0)
            found += [(others * up).sum(axis=0), (others * down).sum(axis=0)]
        return eps, np.max(found, axis=0)


@dataclass(frozen=True)
class HalfSpace:
    """Votes against where v.u > z, |v| = 1."""

    v: Array
    z: float

    @property
    def size(self) -> int:
        return self.v.size

    def votes(self, shifts: Array) -> Array:
        return np.asarray(ndtr(shifts @ self.v - self.z))

    def tails(self, d: int) -> tuple[float, Array]:
        eps = float(ndtr(-self.z))
        return eps, naive.half_space(eps, float(np.abs(self.v).max()), TAU)


def scaled(make: object, eps: float) -> Boxes:
    """`make(x)`, whose eps falls with x, at the x where it is `eps`."""
    low, high = -6.0, 8.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if make(middle).tails(1)[0] > eps:  # type: ignore[operator]
            low = middle
        else:
            high = middle
    return make(high)  # type: ignore[no-any-return, operator]


def classifier(rng: np.random.Generator, kind: str) -> Boxes | HalfSpace:
    eps = float(10.0 ** rng.uniform(-4.0, math.log10(0.45)))
    size = int(rng.integers(1, 5))
    far = np.full((1, size), math.inf)
    if kind == "half-space":
        v = rng.standard_normal(size) * 10.0 ** rng.uniform(-1.0, 0.0, size)
        return HalfSpace(v / np.linalg.norm(v), -float(ndtri(eps)))
    if kind == "corner":
        tilt = rng.uniform(-1.0, 1.0, size)
        return scaled(lambda x: Boxes(x + tilt[None], far), eps)
    if kind == "cube":
        middle, half = rng.uniform(0.0, 2.0, size), rng.uniform(0.2, 2.0)
        return scaled(lambda x: Boxes((middle + x - half)[None], (middle + x + half)[None]), min(eps, 0.05))
    if kind == "band":
        # Along one coordinate: wide enough, it fails half way and passes further out.
        low, high = np.full((1, size), -math.inf), far.copy()
        low[0, 0] = rng.uniform(0.1, 0.8)
        high[0, 0] = low[0, 0] + rng.uniform(0.7, 2.5)
        return Boxes(low, high)
    if kind == "shell":
        # Beyond the last threshold, where nothing but p_K and Q is known; the rest of eps in front of the first.
        start = TAU[-1] + rng.uniform(0.0, 0.6)
        low, high = np.full((2, size), -math.inf), np.full((2, size), math.inf)
        low[0, 0], high[0, 0] = start, start + rng.uniform(0.01, 2.0)
        low[1, 0], high[1, 0] = TAU[0] - rng.uniform(0.1, 0.6), TAU[0]
        return Boxes(low, high)
    # Pieces of several segments, each at the upper end of its own: near to what the dual fears.
    cuts = np.append(TAU, math.inf)[: int(rng.integers(3, TAU.size + 2))]
    low, high = np.full((cuts.size - 1, size), -math.inf), np.full((cuts.size - 1, size), math.inf)
    share = rng.uniform(0.05, 1.0, cuts.size - 1)
    high[:, 0] = cuts[1:]
    low[:, 0] = np.maximum(cuts[:-1], -ndtri(ndtr(-cuts[1:]) + share * (ndtr(-cuts[:-1]) - ndtr(-cuts[1:]))))
    low[:, 1:] = rng.uniform(-2.0, 0.5, (1, size - 1))
    return Boxes(low, high)


def shifts(rng: np.random.Generator, covering: Covering, size: int, n: int = 400) -> Array:
    """Shifts on and in the unit ball of a family, over the classifier's own coordinates: vertices, faces, equal and random ones."""
    m = min(size, int(covering.w) + 1)
    x = np.abs(rng.standard_normal((n, size))) * 10.0 ** rng.uniform(-1.5, 0.0, (n, size))
    order = rng.random((n, size)).argsort(axis=1).argsort(axis=1)
    x[order >= rng.integers(1, m + 1, (n, 1))] = 0.0
    x = np.where((rng.random((n, 1)) < 0.3) & (x > 0.0), 1.0, x)
    x[: 2 * size] = np.concatenate([np.eye(size)] * 2)
    x *= np.where(rng.random((n, size)) < 0.15, -1.0, 1.0)
    length = np.abs(x).max(axis=1) if covering.p == math.inf else (np.abs(x) ** covering.p).sum(axis=1) ** (1.0 / covering.p)
    inner = np.where(rng.random(n) < 0.6, 1.0, rng.random(n))
    inner[:size] = 1.0
    return x / length[:, None] * inner[:, None] * (1.0 - 1e-9)


KINDS = ("half-space", "corner", "cube", "band", "shell", "pieces")


def families(d: int) -> list[Covering]:
    few = min(d, 4)
    return [
        Covering.lp(1, d),
        Covering.lp(1.5, d),
        Covering.sparse(min(d, 3)),
        Covering.lp(math.inf, few),
        Covering.lp(2, few),
        Covering.line(),
    ]


def attack(tails: TailTable, rng: np.random.Generator, kind: str) -> tuple[int, float]:
    """(balls attacked, the largest share of votes against seen in any)."""
    model = classifier(rng, kind)
    d = max(model.size, int(rng.choice([model.size, 10, 784])))
    eps, p = model.tails(d)
    if not 0.0 < eps < 0.5:
        return 0, 0.0
    coverings = [c for c in families(d) if c.w > 0.0 or c.p == 2.0]
    sizes = tails.radii([eps * (1.0 + 1e-12)], TAU, np.minimum(p * (1.0 + 1e-12), 1.0)[None], coverings)[0]
    worst = 0.0
    for covering, size in zip(coverings, sizes.tolist(), strict=True):
        x = shifts(rng, covering, model.size) * min(size, 30.0)
        worst = max(worst, float(model.votes(x).max()))
    return len(coverings), worst


@pytest.mark.parametrize("kind", KINDS)
def test_no_shift_in_a_certified_ball_loses_the_vote(tails: TailTable, kind: str) -> None:
    rng = np.random.default_rng([121, KINDS.index(kind)])
    balls, seen = 0, []
    for _ in range(100):
        count, worst = attack(tails, rng, kind)
        balls += count
        seen.append(worst)
        assert worst <= 0.5
    assert balls >= 300
    # The attack has teeth: it comes near.
    assert max(seen) >= (0.3 if kind == "cube" else 0.45)


def test_a_half_space_along_one_coordinate_is_certified_up_to_where_it_fails(tails: TailTable) -> None:
    for z in (0.3, 1.0, 2.0, 3.0):
        model = HalfSpace(np.array([1.0, 0.0]), z)
        eps, p = model.tails(2)
        sizes = tails.radii([eps], TAU, p[None], [Covering.lp(1, 2), Covering.sparse(2), Covering.line()])[0]
        assert (sizes <= z * (1.0 + 1e-9)).all()
        assert (sizes >= z * (1.0 - 1e-9)).all()
