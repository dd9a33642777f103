"""Radii by tails and first order together: classifiers with closed-form votes, attacked inside their balls."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtri

from certlut import Table
from certlut.beyond import extended
from certlut.kernels.arrays import Array
from certlut.lookup.tail_format import THRESHOLDS
from certlut.lookup.tails import TailTable, load_tails
from certlut.statistics.summary import Moments, Statistics, summarise
from certlut.statistics.votes import Tail
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.families import families
from certlut.threats.sets import L1, Ball, Quantity, Threat
from reference.boxes import Box, random_box

TAUS = np.array(THRESHOLDS)
# So many samples, and a level so large, that counts stand for probabilities.
MANY, LEVEL = 10**15, 0.5


@pytest.fixture(scope="module")
def tails() -> TailTable:
    return load_tails()


def axis(d: int, j: int) -> Array:
    return np.eye(d)[j]


def threats_of(d: int, rng: np.random.Generator) -> list[Threat]:
    j = int(rng.integers(d))
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[: min(d, int(rng.integers(1, 9)))]] = True
    out: list[Threat] = [L1, Lp(1.5), Sparse(1), Direction(axis(d, j) * rng.choice([-1.0, 1.0]), "ray"), Line(axis(d, j), "line")]
    out += [Subspace(mask, p, f"mask{p:g}") for p in (1.0, 2.0, 4.0, np.inf)]
    return out if d == 1 else [*out, Sparse(2), Sparse(min(d, 3), "sparse3")]


def exact_statistics(box: Box, threats: list[Threat]) -> Statistics:
    """As of endless samples."""
    d, counted = box.d, {}
    for name, family in families(threats, d).items():
        if family.vectors is not None:
            (axes,) = np.nonzero(family.vectors[0])
            signs = np.sign(family.vectors[:, axes[0]])
            p = np.array([max(box.tail(int(axes[0]), s, tau) for s in signs) for tau in TAUS])
        else:
            p = box.largest_tails(TAUS, np.arange(d) if family.mask is None else np.flatnonzero(family.mask))
        counted[name] = Tail(family.key, TAUS, np.ceil(MANY * p).astype(np.int64)[None])
    votes = round(MANY * (1.0 - float(box.against(np.zeros((1, d)))[0])))
    half = np.array([MANY // 2, MANY - MANY // 2])
    moments = Moments(half, np.array([votes // 2, votes - votes // 2]), np.zeros((2, d)), np.zeros((2, d)), tails=counted)
    return summarise([moments], threats, 1.0)


def exact_bounds(box: Box, threats: list[Threat], rim: float) -> dict[Quantity, Array]:
    """The gradient's true norms, a hair to the safe side."""
    y, out = box.gradient, {}
    for threat in threats:
        parts = threat.parts()
        for quantity in threat.needs():
            by = parts.get(quantity.part)
            part = y if by is None else by(y)
            if quantity.norm == "sparse":
                value = float(np.linalg.norm(np.sort(np.abs(y))[-by.largest :])) if by else float(np.abs(y).max())
            elif quantity.norm == "dot":
                value = float(part[0])
            else:
                p = {"l1": 1.0, "l2": 2.0, "linf": np.inf, "abs": np.inf, "lp": by.dual if by else 2.0}[quantity.norm]
                value = float(np.linalg.norm(part, p)) if part.size else 0.0
            nudged = value + 1e-12
            if quantity.side == "lower":
                nudged = min(value, rim) * (1.0 - 1e-9) if value > 0.0 else value - 1e-12
            out[quantity] = np.array([nudged])
    return out


def certified(box: Box, threats: list[Threat], table: Table, tails: TailTable) -> dict[str, tuple[float, float]]:
    """Threat -> (first-order, joint) radius from exact information."""
    statistics = exact_statistics(box, threats)
    q = 1.0 - box.against(np.zeros((1, box.d))) * (1.0 + 1e-12)
    rim = np.exp(-0.5 * ndtri(q) ** 2) / np.sqrt(2.0 * np.pi) * (1.0 + 1e-12)
    bounds = exact_bounds(box, threats, float(rim[0]))
    first = {}
    for threat in threats:
        found = [np.asarray(table.radius(q, m1, m2)) for m1, m2 in threat.queries(bounds, box.d)]
        first[threat.name] = np.max(found, axis=0) / threat.kappa(box.d)
    levels = dict.fromkeys(families(threats, box.d), LEVEL)
    both = extended(statistics, threats, first, q, rim, bounds, levels, table, tails)
    return {name: (float(first[name][0]), max(float(first[name][0]), float(both[name][0]))) for name in both}


def shifts(threat: Threat, box: Box, rng: np.random.Generator, count: int) -> Array:
    """Points of size 1 where the vote may be least: axes, few coordinates, the box's own; shape (N, d)."""
    d = box.d
    if threat.exponent == 2.0 and hasattr(threat, "v"):
        v = threat.v.ravel()
        return np.array([v]) if isinstance(threat, type(Direction(v))) else np.array([v, -v])
    touched = np.flatnonzero(threat.touched) if threat.touched is not None else np.arange(d)
    informative = [j for j in touched if box.low[j] > -30.0 or box.high[j] < 30.0] or list(touched[:1])
    pool = np.array(informative[:8])
    most = min(threat.coordinates(d), len(pool))
    out = np.zeros((count, d))
    for row in out:
        chosen = rng.permutation(pool)[: int(rng.integers(1, most + 1))]
        row[chosen] = rng.choice([-1.0, 1.0], len(chosen)) * rng.choice([np.ones(len(chosen)), rng.uniform(0.05, 1.0, len(chosen))])
    if isinstance(threat, Ball) and threat.p > 2.0:
        out[: count // 4, touched] = rng.choice([-1.0, 1.0], (count // 4, len(touched)))
    size = (
        np.abs(out).max(axis=1)
        if threat.exponent == np.inf
        else (np.abs(out) ** threat.exponent).sum(axis=1) ** (1.0 / threat.exponent)
    )
    return out / size[:, None]


@pytest.mark.parametrize("d", [1, 2, 3, 8, 64, 784])
def test_no_shift_inside_a_ball_loses_the_vote(d: int, shipped: Table, tails: TailTable) -> None:
    rng = np.random.default_rng(1000 + d)
    balls = gained = 0
    for _ in range(20 if d < 100 else 6):
        box, threats = random_box(d, rng), threats_of(d, rng)
        for threat in threats:
            first, radius = certified(box, [threat], shipped, tails)[threat.name] if threat.tails(d) else (0.0, 0.0)
            if radius == 0.0:
                continue
            # Inside too: a vote may be lost early and won again.
            unit = shifts(threat, box, rng, 40)
            for share in (1.0 - 1e-9, *rng.uniform(0.2, 1.0, 6)):
                worst = float(box.against(radius * share * unit).max())
                assert worst < 0.5 + 1e-12, (box, threat.name, radius, share)
            balls, gained = balls + 1, gained + (radius > 1.01 * first)
    assert balls >= (130 if d < 100 else 45)
    assert gained >= 0.05 * balls


def test_along_its_own_axis_a_half_space_is_certified_to_the_thresholds_next_to_it(shipped: Table, tails: TailTable) -> None:
    """Truth c; known is only that votes against lie beyond the threshold below c, and how many."""
    for c in (0.8, 1.6, 2.4, 3.2):
        box = Box(np.array([c, -40.0, -40.0]), np.full(3, 40.0))
        for threat in (L1, Sparse(1), Direction(axis(3, 0))):
            first, radius = certified(box, [threat], shipped, tails)[threat.name]
            assert 0.995 * c <= radius <= c
            assert first <= radius


def test_a_union_of_half_spaces_gains_over_first_order_as_an_independent_solution_says(shipped: Table, tails: TailTable) -> None:
    """Against where any |u_j| > c, d = 64, which has no gradient; the bound along an axis is solved here by itself."""
    c, d = 3.0, 64
    box = Box(np.full(d, -c), np.full(d, c), outside=True)
    first, radius = certified(box, [Sparse(1)], shipped, tails)["sparse1"]
    eps, p = float(box.against(np.zeros((1, d)))[0]), box.largest_tails(TAUS, np.arange(d))

    def worst(a: float) -> float:
        """Mass as far out as the thresholds allow, segment by segment from the top."""
        edges, total, above = [*TAUS.tolist(), np.inf], 0.0, 0.0
        for low, high, mass in zip([-np.inf, *TAUS][::-1], edges[::-1], [eps, *np.minimum(p, eps)][::-1], strict=True):
            take = mass - above
            start = float(-ndtri(min(take + _q(high), 1.0))) if take > 0 else high
            total += _q(max(start, low) - a) - _q(high - a) if take > 0 else 0.0
            above = mass
        return total

    truth = brentq(lambda a: worst(a) - 0.5, first, 8.0)
    assert 0.98 * truth <= radius <= truth * (1.0 + 1e-9)
    assert radius > 1.05 * first


def _q(x: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-x))


def test_a_vote_lost_on_the_way_is_not_jumped_over(shipped: Table, tails: TailTable) -> None:
    """h = 1{0.3 < u < 1.75} wins at 2 and loses at 1."""
    box = Box(np.array([0.3]), np.array([1.75]))
    assert box.against(np.array([[1.0]]))[0] > 0.5 > box.against(np.array([[2.0]]))[0]
    for threat in (L1, Direction(np.ones(1)), Line(np.ones(1))):
        _, radius = certified(box, [threat], shipped, tails)[threat.name]
        lost = brentq(lambda a: float(box.against(np.array([[a]]))[0]) - 0.5, 0.0, 1.0)
        assert 0.9 * lost < radius <= lost


@pytest.mark.parametrize("seed", range(3))
def test_sampled_certificates_fail_no_more_often_than_alpha(seed: int, shipped: Table, tails: TailTable) -> None:
    """Everything from drawn samples, alpha = 0.1, a union in three dimensions: the joint miss rate of three threats."""
    import torch

    from certlut.evaluate import evaluate
    from certlut.sampling.card import Sampling
    from certlut.sampling.sampler import Sampler
    from certlut.statistics.records import join

    rng = np.random.default_rng(seed)
    c = rng.uniform(1.0, 2.0)
    box = Box(np.full(3, -40.0), np.full(3, c), outside=True)

    def model(x: torch.Tensor) -> torch.Tensor:
        inside = (x < c).all(dim=1)
        return torch.stack((inside, ~inside), dim=1).float()

    threats = [L1, Sparse(1), Direction(axis(3, 0))]
    sampler, runs = Sampler(model, 1.0, 2, threats), 300
    drawn = [sampler.sample(np.zeros(3), Sampling(n=400, n0=20, batch_size=420, seed=seed), i).statistics for i in range(runs)]
    result = evaluate(join(drawn), threats, 0.1, "adaptive", shipped, tails)
    truth = {
        name: brentq(lambda a: float(box.against(np.array([[a, 0.0, 0.0]]))[0]) - 0.5, 0.0, c) for name in ("sparse1", "direction")
    }
    # The worst split of an l1 shift of this size over the three coordinates.
    splits = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0.8, 0.2, 0], [0.9, 0.05, 0.05]])
    truth["l1"] = brentq(lambda a: float(box.against(a * splits).max()) - 0.5, 0.0, c)
    missed = np.zeros(runs, dtype=bool)
    for name, value in truth.items():
        missed |= (result.radius[name] > value) & (result.q_lower > 0.5)
    assert missed.mean() <= 0.1 + 3.0 * np.sqrt(0.09 / runs)
