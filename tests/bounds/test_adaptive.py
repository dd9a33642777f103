import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
from scipy.special import ndtri

from certlut.bounds import adaptive
from certlut.bounds.adaptive import ADAPTIVE, BET_EVENTS, MEAN_EVENTS
from certlut.statistics.summary import TARGETS, UPPER_BETS, Statistics, summarise
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, Threat, complement, projections
from reference.naive_statistics import Array, Known, half_space, phi, rare_tau
from reference.simulate import allowed, classifiers, missed, missed_together, quantities, sampled, threats_of, unit, without_bets

TOP, LONG = Quantity(ALL, "linf", "upper"), Quantity(ALL, "l2", "upper")
LEVEL, RUNS, N = 0.1, 60, 600


def _bound(quantity: Quantity, statistics: Statistics, q: Array, alpha: float, bets: bool = True) -> Array:
    return ADAPTIVE.bound(quantity, statistics if bets else without_bets(statistics), q, alpha)


# Levels


def test_the_shares_of_a_bound_add_up_to_its_level() -> None:
    for events in (BET_EVENTS, MEAN_EVENTS):
        for shares in events.values():
            assert sum(shares.values()) == 1.0
            assert min(shares.values()) > 0.0
    # Bets serve nothing that the means do not.
    assert set(BET_EVENTS) == {("l2", "lower"), ("l2", "upper"), ("linf", "upper"), ("dot", "lower"), ("abs", "upper")}
    assert set(MEAN_EVENTS) == {*BET_EVENTS, ("l1", "upper"), ("lp", "upper"), ("sparse", "upper")}


def test_every_event_has_its_own_share_of_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    threats = (L1, L2, Direction(unit(4, 0), "along"), Lp(3.0), Sparse(2))
    parts, statistics = projections(threats), sampled(half_space(unit(4, 0), 1.28), threats, 2, 4000, 0)
    q = np.full(2, 0.89)
    spent: list[float] = []
    for name in ("_bet", "tau"):
        original = getattr(adaptive, name)

        def spy(*args: object, original: object = original, name: str = name) -> object:
            spent.append(float(args[1]) if name == "_bet" else math.exp(-float(args[1])))  # type: ignore[arg-type]
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(adaptive, name, spy)
    for quantity in quantities(threats):
        for bets in (True, False):
            spent.clear()
            _bound(quantity, statistics, q, 0.02, bets)
            shares = ADAPTIVE.events(quantity, parts[quantity.part], bets)
            assert shares is not None
            assert sorted(spent) == pytest.approx(sorted(0.02 * share for share in shares.values()), rel=1e-12), (quantity, bets)


def test_the_size_along_a_line_spends_its_whole_level_on_either_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(unit(4, 0), "line")
    statistics = sampled(half_space(unit(4, 0), 1.28), [line], 2, 4000, 0)
    spent, original = [], adaptive._bet
    monkeypatch.setattr(adaptive, "_bet", lambda bet, level: spent.append(level) or original(bet, level))
    _bound(Quantity("line", "abs", "upper"), statistics, np.full(2, 0.89), 0.02)
    # One of the two signs is the gradient's: the other one's bound need not hold.
    assert spent == [0.02, 0.02]


# Formulas


def test_the_bet_nearest_to_the_level_is_taken_and_is_affine_in_its_logarithm() -> None:
    statistics = sampled(half_space(unit(4, 0), 1.28), (L1, L2), 3, 4000, 0)
    q = np.full(3, 0.89)
    top = statistics.parts[ALL].top
    for k, target in enumerate(TARGETS):
        for L in (0.95 * target, target, 1.05 * target):
            bound = _bound(TOP, statistics, q, math.exp(-L))
            assert bound == pytest.approx(top[:, 0, k] + top[:, 1, k] * L, rel=1e-5)
            # Rounded outward.
            assert (bound > top[:, 0, k] + top[:, 1, k] * L).all()
    # Half of the level is that of the bets on the length.
    low = _bound(LENGTH, statistics, q, 2.0 * math.exp(-10.0))
    length = statistics.parts[ALL].length
    assert (low >= length[:, 0, 1] - length[:, 1, 1] * (10.0 + 1e-5)).all()


_slow_tau = functools.cache(rare_tau)


def _naive(quantity: Quantity, statistics: Statistics, eps: float, alpha: float, bets: bool) -> Array:
    """Bounds from the definitions: a search for the length, brute-force tau."""
    part, b = statistics.parts[quantity.part], float(statistics.b[0])
    n1, n2 = (int(a) for a in statistics.n[0])

    def stray(n: int, level: float) -> float:
        return _slow_tau(math.log(1.0 / level) / n, b, eps)

    def bet(kind: str, level: float) -> Array:
        L = math.log(1.0 / level)
        k = int(np.argmin(np.abs(np.log(L / np.array(TARGETS)))))
        value = getattr(part, kind)
        return np.asarray(value[:, 0, k] + (1.0 if kind in UPPER_BETS else -1.0) * value[:, 1, k] * L)

    kinds = {"linf": part.linf_b, "l1": part.l1_b, "lp": part.norm_b, "sparse": part.norm_b}
    if quantity.norm == "dot":
        return bet("along", alpha) if bets else part.dot_b - stray(n1 + n2, alpha)
    if quantity.norm == "abs":
        return np.maximum(bet("along_high", alpha), -bet("along", alpha)) if bets else abs(part.dot_b) + stray(n1 + n2, alpha)
    if quantity.norm == "linf" and bets and not np.isnan(part.top).any():
        return bet("top", alpha)
    if quantity.norm in kinds:
        p = {"linf": 1.0, "l1": math.inf, "sparse": 2.0, "lp": part.dual / (part.dual - 1.0)}[quantity.norm]
        # The longest vector of p-norm 1: a corner of the cube, or an axis.
        longest = part.coordinates ** (0.5 - 1.0 / p) if p > 2.0 else 1.0
        return np.asarray(kinds[quantity.norm] + longest * stray(n1 + n2, alpha))
    upper = quantity.side == "upper"
    across, along = (alpha / 2, alpha / 2) if upper or not bets else (alpha / 4, alpha / 4)
    sign = 1.0 if upper else -1.0
    if bets:
        product = part.x_l2_b * bet("half_high" if upper else "half_low", along)
    else:
        product = part.inner_b + sign * part.x_l2_b * stray(n2, along)
    # The largest or least length that the two inequalities leave.
    grid = np.linspace(0.0, 1.0, 2_000_001)
    room = grid**2 - sign * stray(n1, across) * grid
    found = []
    for limit in product:
        kept = grid[room <= limit] if upper else grid[room >= limit]
        found.append(kept.max() if upper else kept.min())
    out = np.array(found)
    return np.maximum(out, bet("length", alpha / 2)) if bets and not upper else out


@pytest.mark.parametrize("bets", [True, False])
def test_bounds_are_those_of_the_definitions(bets: bool) -> None:
    threats = threats_of(8)
    statistics = sampled(half_space(unit(8, 0), 1.28), threats, 2, 20_000, 1)
    statistics = dataclasses.replace(statistics, b=np.full(2, statistics.b[0]))
    seen = set()
    for alpha in (0.05, 1e-4):
        for quantity in quantities(threats):
            seen.add((quantity.norm, quantity.side))
            bound = _bound(quantity, statistics, np.full(2, 0.885), alpha, bets)
            assert bound == pytest.approx(_naive(quantity, statistics, 0.115, alpha, bets), rel=2e-5, abs=2e-6), (quantity, alpha)
    assert seen == {("l2", "lower"), ("dot", "lower"), *((norm, "upper") for norm in ("l1", "l2", "linf", "lp", "sparse", "abs"))}


def test_a_bound_of_a_kind_that_is_not_known_is_refused() -> None:
    statistics = summarise([half_space(unit(8, 0), 0.8).exact_moments(100)], (L2,), 1.0)
    for quantity in (Quantity(ALL, "l1", "lower"), Quantity(ALL, "linf", "lower"), Quantity(ALL, "dot", "upper")):
        with pytest.raises(ValueError, match=f"no bound known for the {quantity}"):
            _bound(quantity, statistics, np.ones(1), 0.1)


def test_an_upper_bound_of_eps_from_the_same_samples_only_widens() -> None:
    statistics = sampled(half_space(unit(8, 0), 1.28), threats_of(8), 4, 2000, 1)
    for quantity in quantities(threats_of(8)):
        sign = 1.0 if quantity.side == "upper" else -1.0
        for bets in (True, False):
            bounds = [sign * _bound(quantity, statistics, np.full(4, q), 0.01, bets) for q in (0.95, 0.9, 0.8, 0.0)]
            assert all((a <= b + 1e-15).all() for a, b in itertools.pairwise(bounds)), quantity


# Edges


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("d", [1, 3])
def test_few_samples_bound_every_part_finitely(n: int, d: int) -> None:
    threats: list[Threat] = [L1, L2, LINF, Lp(3.0), Direction(np.ones(d), "along"), Subspace(np.arange(d) == 0, 1, "one")]
    statistics = sampled(half_space(unit(d, 0), 0.8), threats, 3, n, 0)
    for quantity in quantities(threats):
        bound = _bound(quantity, statistics, np.zeros(3), 0.01)
        assert np.isfinite(bound).all()
        if quantity.side == "lower" and quantity.norm == "l2":
            assert (bound >= 0.0).all()


def test_a_part_without_gradient_is_bounded_by_its_noise_only() -> None:
    # y is along the first axis; the rest of the coordinates, and a basis across it, have none of it.
    known = half_space(np.eye(6)[0], 1.28)
    size = float(np.linalg.norm(known.y))
    rest = Subspace(np.arange(6) > 0, 2, "rest")
    span = Subspace(basis=np.eye(6)[3:5], p=2, name="span")
    statistics = sampled(known, (L2, rest, span), 4, 20_000, 2)
    q = np.full(4, known.q)
    for name in ("rest", "span"):
        assert (_bound(Quantity(name, "l2", "upper"), statistics, q, 0.01) < 0.2 * size).all()
    one = _bound(Quantity(complement("rest"), "l2", "lower"), statistics, q, 0.01)
    assert (one > 0.8 * size).all()
    assert (one <= size).all()


# Coverage


@functools.cache
def _simulated(d: int, place: int) -> tuple[Known, tuple[Threat, ...], Statistics]:
    known, threats = classifiers(d, N)[place], threats_of(d)
    return known, threats, sampled(known, threats, RUNS, N, place)


CASES = [(d, place) for d, count in ((1, 11), (16, 14)) for place in range(count)]


@pytest.mark.parametrize(("d", "place"), CASES)
def test_every_bound_covers_its_norm_and_all_together_do(d: int, place: int) -> None:
    known, threats, statistics = _simulated(d, place)
    assert statistics.count.sum() / statistics.n.sum() == pytest.approx(known.q, abs=5.0 * math.sqrt(0.25 / (RUNS * N)))
    for estimator in ("adaptive", "chernoff"):
        rates = {str(q): float(missed(known, threats, statistics, q, LEVEL, estimator).mean()) for q in quantities(threats)}
        assert {what: rate for what, rate in rates.items() if rate > allowed(LEVEL, RUNS)} == {}
    assert missed_together(known, threats, statistics, LEVEL).mean() <= allowed(LEVEL, RUNS)


def test_no_kind_of_bound_misses_too_often_over_all_classifiers() -> None:
    misses: dict[tuple[str, str], list[float]] = {}
    together = []
    for d, place in CASES:
        known, threats, statistics = _simulated(d, place)
        for quantity in quantities(threats):
            rate = float(missed(known, threats, statistics, quantity, LEVEL).mean())
            misses.setdefault((quantity.norm, quantity.side), []).append(rate)
        together.append(float(missed_together(known, threats, statistics, LEVEL).mean()))
    for kind, rates in misses.items():
        assert np.mean(rates) <= LEVEL, kind
    assert np.mean(together) <= allowed(LEVEL, RUNS * len(CASES))
    # Not for want of trying: some do miss.
    assert sum(map(sum, misses.values())) > 0.0


@pytest.mark.parametrize(
    ("bet", "stray", "quantity"),
    [
        (-1.0, 1.0, LENGTH),
        (-1.0, 1.0, TOP),
        (-1.0, 1.0, Quantity("along", "dot", "lower")),
        (-1.0, -1.0, LONG),
        (1.0, 0.1, Quantity(ALL, "l1", "upper")),
        (1.0, 0.1, Quantity("l1.5", "lp", "upper")),
    ],
    ids=str,
)
def test_coverage_catches_a_width_of_the_wrong_sign_or_size(
    bet: float, stray: float, quantity: Quantity, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_bet, own_tau = adaptive._bet, adaptive.tau

    def mutant(values: Array, level: float) -> tuple[Array, Array]:
        value, width = own_bet(values, level)
        return value, bet * width

    monkeypatch.setattr(adaptive, "_bet", mutant)
    monkeypatch.setattr(adaptive, "tau", lambda *arguments: stray * own_tau(*arguments))
    rates = []
    for d, place in CASES:
        known, threats, statistics = _simulated(d, place)
        rates.append(float(missed(known, threats, statistics, quantity, LEVEL).mean()))
    assert max(rates) > allowed(LEVEL, RUNS), rates


# Width


@pytest.mark.parametrize("q", [0.9, 0.99])
def test_bounds_are_within_a_stated_factor_of_gaussian_ones(q: float) -> None:
    """Against kappa sqrt(2 V L / n), V the least variance that v.u (f - b), v along y, has for a constant b."""
    d, n, alpha = 64, 100_000, 2.5e-4
    z = float(ndtri(q))
    known, rim = half_space(unit(d, 0), z), phi(z)
    threats = (L1, L2, LINF, Lp(3.0), Direction(known.y, "along"))
    statistics = sampled(known, threats, 4, n, 3)
    # E t^2 of the votes against, t = v.u.
    against = 1.0 - q + z * rim
    least = min(b * b * against + (1.0 - b) ** 2 * (1.0 - against) for b in np.linspace(0.0, 1.0, 1001)) - rim**2
    ideal = math.sqrt(2.0 * least * math.log(1.0 / alpha) / n)
    # Coordinates have the smaller variance across y, and h takes out part of it: below 1. What an l1 norm adds is its noise floor.
    factors = {"lower dot": 1.0, "lower l2": 1.2, "upper l2": 1.7, "upper linf": 0.7, "upper l1": 1.7, "upper lp": 1.7}
    for quantity in quantities(threats):
        kappa = {"l1": math.sqrt(d), "lp": d ** (1.0 / 6.0)}.get(quantity.norm, 1.0)
        bound = _bound(quantity, statistics, np.full(4, q), alpha)
        gap = (bound - known.truth(quantity, threats)) * (1.0 if quantity.side == "upper" else -1.0)
        assert (gap > 0.0).all(), quantity
        assert (gap < factors[f"{quantity.side} {quantity.norm}"] * kappa * ideal).all(), (quantity, gap / (kappa * ideal))
