import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.bounds.adaptive import ADAPTIVE
from certlut.bounds.budget import Budget, Claim, split
from certlut.bounds.direction import dual_norm
from certlut.bounds.estimators import ESTIMATORS, find_estimator
from certlut.bounds.gradient import gradient_bounds, tighten
from certlut.sampling.bets import Tally
from certlut.statistics.summary import Moments, Statistics, summarise
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.projections import Projection
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, complement, projections
from reference.naive_statistics import Array, Known, half_space
from reference.simulate import allowed, quantities, sampled, unit


def _budget(levels: dict[Quantity, float], estimator: str = "adaptive") -> Budget:
    """One that pays for these bounds only."""
    claims = tuple(Claim(quantity, {"all": 1.0}, ("any",), level) for quantity, level in levels.items())
    return replace(split(0.5, (L2,), estimator), groups={"gradient": claims})


def test_unknown_estimators_and_quantities_are_refused() -> None:
    statistics = summarise([half_space(unit(8, 0), 0.8).exact_moments(100)], (L2,), 1.0)
    one = np.ones(1)
    with pytest.raises(ValueError, match="estimator 'best': expected one of adaptive, paper"):
        find_estimator("best")
    quantity = Quantity(ALL, "l1", "lower")
    for estimator, message in (
        ("adaptive", "no bound known for the lower l1 of all"),
        ("paper", "no bound of the lower l1 of all"),
    ):
        assert find_estimator(estimator).events(quantity, Projection()) is None
        with pytest.raises(ValueError, match=message):
            gradient_bounds(statistics, _budget({quantity: 0.1}, estimator), one, one)


@pytest.mark.parametrize("estimator", ["adaptive", "paper"])
def test_every_bound_is_taken_at_its_own_level_then_tightened(estimator: str) -> None:
    threats = (L1, L2, LINF, Subspace([True, False, True, False], 2, "red"), Direction([1.0, 1.0, 0.0, 0.0], "along"))
    statistics = sampled(half_space(unit(4, 0), 0.8), threats, 3, 4000, 0)
    q, rim = np.full(3, 0.77), np.full(3, 0.3)
    levels = {quantity: 0.001 * (1.0 + i) for i, quantity in enumerate(quantities(threats))}
    bounds = gradient_bounds(statistics, _budget(levels, estimator), q, rim)
    alone = {quantity: ESTIMATORS[estimator].bound(quantity, statistics, q, level) for quantity, level in levels.items()}
    expected = tighten(alone, statistics.parts, rim)
    if estimator == "adaptive":
        expected |= _beside(expected, statistics, rim, 0.5 * levels[LENGTH], 0)
    assert bounds.keys() == expected.keys() == levels.keys()
    assert all(np.array_equal(bounds[quantity], expected[quantity]) for quantity in levels)


def _beside(bounds: dict[Quantity, Array], statistics: Statistics, rim: Array, level: float, k: int) -> dict[Quantity, Array]:
    """Upper bounds, or less where bets on the length at this level, the k-th ones, say so of the dual norm."""
    bet, out = statistics.parts[ALL].length, {}
    low = bet[:, 0, k] - bet[:, 1, k] * (math.log(1.0 / level) + 1e-6)
    upper = np.minimum(bounds[Quantity(ALL, "l2", "upper")], rim)
    for quantity, bound in bounds.items():
        if quantity.side == "upper":
            part = statistics.parts[quantity.part]
            reach = part.reach[:, {"linf": 0, "l1": 1}.get(quantity.norm, 2), k] * (1.0 + 1e-12)
            kappa = part.coordinates ** {"l1": 1.0 / 2.0, "lp": 1.0 / 6.0}.get(quantity.norm, 0.0)
            out[quantity] = np.minimum(bound, dual_norm(low, upper, reach, kappa))
    return out


def test_upper_bounds_go_by_the_proposal_too() -> None:
    d, rng = 300, np.random.default_rng(4)
    threats = (L1, L2, LINF, Subspace(np.arange(d) < 90, math.inf, "few"), Lp(3.0), Sparse(2), Line(np.ones(d), "line"))
    known = half_space(*[x / np.linalg.norm(x) for x in [rng.standard_normal(d)]], 1.3)
    w = known.y / np.linalg.norm(known.y) + 0.01 * rng.standard_normal(d)
    w /= np.linalg.norm(w)
    statistics = sampled(known, threats, 3, 1500, 0, partial(Tally, w=torch.from_numpy(w)))
    statistics = replace(statistics, proposal={"by": "gradient"})
    q, rim = np.full(3, 0.9), np.full(3, 0.18)
    levels = {quantity: 0.001 * (1.0 + i) for i, quantity in enumerate(quantities(threats))}
    bounds = gradient_bounds(statistics, _budget(levels), q, rim)
    alone = {quantity: ADAPTIVE.bound(quantity, statistics, q, level) for quantity, level in levels.items()}
    expected = tighten(alone, statistics.parts, rim)
    expected |= _beside(expected, statistics, rim, 0.875 * levels[LENGTH], 0)
    bet, upper, helped = statistics.parts[ALL].thin, np.minimum(expected[Quantity(ALL, "l2", "upper")], rim), 0
    thin = np.sign(w) * np.maximum(np.abs(w) - 0.7 / math.sqrt(d), 0.0)
    thin /= np.linalg.norm(thin)
    for quantity in levels:
        if quantity.norm == "l1":
            low = bet[:, 0, 0] - bet[:, 1, 0] * (math.log(1.0 / (0.25 * levels[quantity])) + 1e-6)
            part = projections(threats)[quantity.part]
            found = dual_norm(low, upper, np.abs(part(thin)).sum(), math.sqrt(part.rank(d)))
            helped += int((found < expected[quantity]).sum())
            expected[quantity] = np.minimum(expected[quantity], found)
        assert bounds[quantity] == pytest.approx(expected[quantity], rel=1e-10), quantity
    assert helped > 0


# What was bet on the length bounds dual norms

FLAT = 200
EVERY, LEVEL, RUNS = Quantity(ALL, "l1", "upper"), 0.1, 60


def _along(w: Array) -> tuple[Known, Statistics]:
    """Of a gradient whose numbers are all alike, proposed as w."""
    known = half_space(np.full(FLAT, FLAT**-0.5), 1.28)
    statistics = sampled(known, (LINF, L2), RUNS, 1500, 4, partial(Tally, w=torch.from_numpy(w)))
    return known, replace(statistics, proposal={"by": "gradient"})


def _missed(known: Known, statistics: Statistics) -> tuple[float, Array]:
    """(how often |y|_1 is above its bound, the bounds), where |y|_2 is the largest that q allows and known."""
    budget = replace(_budget({EVERY: 1e-9, LENGTH: LEVEL}))
    rim = np.full(RUNS, np.linalg.norm(known.y) * (1.0 + 1e-12))
    bound = gradient_bounds(statistics, budget, np.full(RUNS, known.q), rim)[EVERY]
    return float((bound < np.abs(known.y).sum() * (1.0 - 1e-12)).mean()), bound


def test_a_dual_norm_that_the_bets_reach_is_bounded_as_often_as_the_level_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # All numbers of w are positive: it reaches sqrt(d) cos 0.5, and the rest of y is where that of the flat delta is. No slack.
    w = (math.cos(0.5) + math.sin(0.5) * (-1.0) ** np.arange(FLAT)) / math.sqrt(FLAT)
    known, statistics = _along(w)
    rate, bound = _missed(known, statistics)
    assert rate <= allowed(LEVEL, RUNS)
    # Had it been a bound from above, it would be wrong: the truth is near.
    original = ADAPTIVE.leads

    def mirrored(quantity: Quantity, s: Statistics, levels: Mapping[Quantity, float]) -> Iterator[tuple[Array, int]]:
        low, k = next(original(quantity, s, levels))
        bet = s.parts[ALL].length
        yield 2.0 * bet[:, 0, k] - low + 2.0 * bet[:, 1, k], k

    monkeypatch.setattr(type(ADAPTIVE), "leads", lambda _, *rest: mirrored(*rest))
    assert _missed(known, statistics)[0] > allowed(LEVEL, RUNS)
    monkeypatch.undo()
    # |Zbar|_1 says nothing here; the bound is less than |y|_2 gives.
    assert bound.mean() <= math.sqrt(FLAT) * np.linalg.norm(known.y) * (1.0 + 1e-9)


def test_a_sparse_direction_bounds_the_dual_norm_of_all_by_far() -> None:
    # y along the first coordinate: |y|_1 is |y|_2, sqrt(d) times less than |y|_2 tells.
    known, w = half_space(np.eye(FLAT)[0], 1.28), np.eye(FLAT)[0]
    statistics = replace(
        sampled(known, (LINF, L2), RUNS, 4000, 4, partial(Tally, w=torch.from_numpy(w))), proposal={"by": "gradient"}
    )
    rate, bound = _missed(known, statistics)
    assert rate <= allowed(LEVEL, RUNS)
    without = {name: replace(part, reach=np.full_like(part.reach, np.nan)) for name, part in statistics.parts.items()}
    assert bound.mean() < 0.75 * _missed(known, replace(statistics, parts=without))[1].mean()


# Norm facts


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 2**32 - 1))
def test_tighten_keeps_true_bounds_true_and_never_loosens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 9))
    y = rng.standard_normal(d) * rng.choice([0.01, 1.0], d)
    mask = np.zeros(d, dtype=bool)
    mask[: rng.integers(1, d)] = True
    rng.shuffle(mask)
    threats = (
        *(L1, L2, LINF)[: rng.integers(0, 4)],
        *(Subspace(mask, p, f"red{i}") for i, p in enumerate((1, 2, np.inf))),
        *(Lp(p, f"power{p:g}") for p in (1.2, 3.0)),
        *(Sparse(k) for k in (1, 2, d)),
        Subspace(basis=np.linalg.qr(rng.standard_normal((d, d)))[0].T[: rng.integers(1, d)], p=3.0, name="span"),
        Direction(rng.standard_normal(d), "along"),
        Line(rng.standard_normal(d), "line"),
    )
    known = Known("any", 0.5, y, lambda *_: (np.zeros(1, np.int64), y[None], y[None]))
    slack = {quantity: rng.choice([0.0, 0.1, 10.0]) * rng.random() for quantity in quantities(threats)}
    true = {quantity: known.truth(quantity, threats) for quantity in slack}
    sign = {quantity: 1.0 if quantity.side == "upper" else -1.0 for quantity in slack}
    bounds = {quantity: np.array([true[quantity] + sign[quantity] * slack[quantity]]) for quantity in slack}
    rim = np.array([float(np.linalg.norm(y)) * (1.0 + rng.choice([0.0, 0.5]))])
    nothing = Moments(np.ones(2, np.int64), np.ones(2, np.int64), np.zeros((2, d)), np.zeros((2, d)))
    tight = tighten(bounds, summarise([nothing], threats, 1.0).parts, rim)
    assert set(tight) == set(bounds)
    for quantity, bound in tight.items():
        assert sign[quantity] * (bound[0] - true[quantity]) >= -1e-12
        # A lower bound may fall to the rim (up to rounding here: the truth is not above it); nothing else moves outwards.
        assert sign[quantity] * (bound[0] - bounds[quantity][0]) <= 1e-12
        assert abs(bound[0]) <= rim[0] * (math.sqrt(d) if quantity.norm in ("l1", "lp") else 1.0) * (1.0 + 1e-12)


def test_tighten_uses_each_norm_fact_by_hand() -> None:
    upper = {norm: Quantity(ALL, norm, "upper") for norm in ("l1", "l2", "linf")}
    lower, dot = Quantity(ALL, "l2", "lower"), Quantity("along", "dot", "lower")
    red, rest = Quantity("red", "l1", "upper"), Quantity(complement("red"), "l2", "lower")
    power = Quantity("power", "lp", "upper")
    loose = {quantity: np.full(2, 9.0) for quantity in (*upper.values(), lower, red, power)} | {
        dot: np.full(2, -9.0),
        rest: np.full(2, -9.0),
    }
    threats = (L2, Subspace(np.arange(16) < 4, math.inf, "red"), Lp(4.0, "power"), Direction(np.ones(16), "along"))
    nothing = Moments(np.ones(2, np.int64), np.ones(2, np.int64), np.zeros((2, 16)), np.zeros((2, 16)))
    parts = summarise([nothing, nothing], threats, 1.0).parts
    # Everything from the rim, which differs by input.
    tight = tighten(loose, parts, np.array([0.3, 0.2]))
    expected = {upper["l1"]: 4.0, upper["l2"]: 1.0, upper["linf"]: 1.0, lower: 1.0, dot: -1.0, red: 2.0, rest: 0.0}
    # 16^(3/4 - 1/2).
    expected[power] = 2.0
    for quantity, factor in expected.items():
        assert np.allclose(tight[quantity], factor * np.array([0.3, 0.2]), rtol=1e-14)
    # From the length of the whole gradient, and from that of the part where it is known.
    tight = tighten(loose | {upper["l2"]: np.array([0.1, 0.25])}, parts, np.array([0.3, 0.2]))
    assert np.allclose(tight[red], [0.2, 0.4], rtol=1e-14)
    assert np.allclose(tight[upper["linf"]], [0.1, 0.2], rtol=1e-14)
    assert np.allclose(tight[dot], [-0.1, -0.2], rtol=1e-14)
    few, size = Quantity("sparse4", "sparse", "upper"), Quantity("line", "abs", "upper")
    parts = summarise([nothing, nothing], (*threats, Sparse(4), Line(np.ones(16), "line")), 1.0).parts
    small = {few: np.full(2, 9.0), size: np.full(2, 9.0), upper["linf"]: np.array([0.1, 0.9])}
    tight = tighten(small, parts, np.array([0.3, 0.2]))
    assert np.allclose(tight[few], [0.2, 0.2], rtol=1e-14)
    assert np.allclose(tight[size], [0.3, 0.2], rtol=1e-14)
    part = Quantity("red", "l2", "upper")
    parts = summarise([nothing, nothing], threats, 1.0).parts
    assert np.allclose(tighten(loose | {part: np.full(2, 0.05)}, parts, np.array([0.3, 0.2]))[red], 0.1, rtol=1e-14)


def test_a_subspace_of_every_coordinate_has_bounds_too() -> None:
    known = half_space(unit(8, 0), 0.8)
    threats = (L2, Subspace(np.ones(8, dtype=bool), 1, "every"))
    statistics = summarise([known.exact_moments(10_000)], threats, 1.0)
    budget = _budget(dict.fromkeys(quantities(threats), 0.01), "paper")
    bounds = gradient_bounds(statistics, budget, np.ones(1), np.ones(1))
    assert bounds[Quantity("every", "linf", "upper")][0] >= np.abs(known.y).max()
    # Nothing is left outside it.
    assert complement("every") not in statistics.parts
