import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_statistics import (
    Array,
    Known,
    ball,
    best_product_exponent,
    exact_tail,
    half_space,
    log_mgf,
    long_tail,
    paper_bound,
    slab,
)
from scipy.stats import beta, binomtest

from runtime import statistics as module
from runtime.binomial import least_n, lower_probability, upper_probability
from runtime.bounds import gradient_bounds, tighten
from runtime.budget import Budget
from runtime.paper import K, deviation, product_quantile
from runtime.statistics import Moments, Part, Statistics, summarise
from runtime.threats import ALL, L1, L2, LINF, Direction, Quantity, Subspace, Threat, complement

ALPHA = 0.1
RUNS = 3000
N = 201
# A rate is taken to be at most ALPHA unless it is four standard errors above.
ALLOWED = ALPHA + 4.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / RUNS)


# Clopper-Pearson


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(1, 200), st.floats(0.0, 1.0), st.floats(1e-12, 0.5))
def test_probability_bounds_are_safe_and_tight_to_1e_9_in_exact_arithmetic(n: int, share: float, alpha: float) -> None:
    count = round(share * n)
    low, high = float(lower_probability(count, n, alpha)), float(upper_probability(count, n, alpha))
    assert 0.0 <= low <= count / n <= high <= 1.0
    assert low == 0.0 or exact_tail(n, count, low) <= Fraction(alpha)
    assert high == 1.0 or 1 - exact_tail(n, count + 1, high) <= Fraction(alpha)
    if count > 0:
        assert exact_tail(n, count, low + 1e-9) > Fraction(alpha)
    if count < n:
        assert 1 - exact_tail(n, count + 1, high - 1e-9) > Fraction(alpha)


@pytest.mark.parametrize("alpha", [9e-4, 1e-7])
@pytest.mark.parametrize(
    ("n", "count"), [(100_000, 99_000), (100_000, 99_999), (100_000, 50_700), (1_250_000, 1_249_990), (10_000, 20)]
)
def test_probability_bounds_are_safe_at_the_sizes_of_real_runs(n: int, count: int, alpha: float) -> None:
    low, high = float(lower_probability(count, n, alpha)), float(upper_probability(count, n, alpha))
    assert long_tail(n, count, low) <= alpha
    assert high == 1.0 or 1 - long_tail(n, count + 1, high) <= alpha
    # Tight relative to the mass against, which decides the radius.
    assert long_tail(n, count, low + 1e-9 * (1.0 - low)) > alpha


def test_probability_bounds_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 10, 777, 100_000):
        for count in {0, n, *rng.integers(0, n + 1, 8).tolist()}:
            for alpha in (1e-9, 1e-3, 0.2):
                interval = binomtest(count, n).proportion_ci(1.0 - 2.0 * alpha, "exact")
                # scipy rounds the level when it splits 1 - 2 alpha.
                assert float(lower_probability(count, n, alpha)) == pytest.approx(interval.low, abs=1e-9, rel=1e-6)
                assert float(upper_probability(count, n, alpha)) == pytest.approx(interval.high, abs=1e-9, rel=1e-6)
                if count:
                    quantile = beta.ppf(alpha, count, n - count + 1)
                    assert float(lower_probability(count, n, alpha)) == pytest.approx(quantile, abs=2e-10)


def test_no_votes_bound_nothing_from_below_and_all_votes_nothing_from_above() -> None:
    n = np.array([1, 7, 1000, 10**6, 10**17])
    assert np.array_equal(lower_probability(np.zeros(5), n, 0.01), np.zeros(5))
    assert np.array_equal(upper_probability(n, n, 0.01), np.ones(5))
    unanimous = lower_probability(n, n, 0.01)
    assert np.all(unanimous < 1.0)
    assert np.all(unanimous <= 0.01 ** (1.0 / n))
    assert np.allclose(unanimous, 0.01 ** (1.0 / n), rtol=0, atol=2e-10)
    assert np.allclose(upper_probability(np.zeros(5), n, 0.01), -np.expm1(np.log(0.01) / n), rtol=1e-8, atol=2e-15)


def test_probability_bounds_are_vectorised() -> None:
    count, n = np.array([[3, 40], [0, 99]]), np.array([10, 100])
    for bound in (lower_probability, upper_probability):
        values = bound(count, n, 0.01)
        assert values.shape == (2, 2)
        assert values.tolist() == [[float(bound(int(count[i, j]), int(n[j]), 0.01)) for j in range(2)] for i in range(2)]


@pytest.mark.parametrize("alpha", [0.5, 0.25, 2.0**-10, 2.0**-30, 0.1, 0.05, 0.001, 9e-4, 1e-7, 0.9, 0.51, 0.49, 1e-300])
def test_least_n_is_exact(alpha: float) -> None:
    n = least_n(alpha)
    assert Fraction(alpha) * 2**n > 1
    assert n == 1 or Fraction(alpha) * 2 ** (n - 1) <= 1


@pytest.mark.parametrize("alpha", [0.4, 0.05, 0.001, 9e-4, 1e-7])
def test_least_n_unanimous_votes_certify_and_one_fewer_do_not(alpha: float) -> None:
    n = least_n(alpha)
    assert lower_probability(n, n, alpha) > 0.5 >= lower_probability(n - 1, n - 1, alpha)


# Constants of the paper's estimator


def test_k_is_its_closed_form() -> None:
    assert pytest.approx(0.25 + 3.0 / math.sqrt(8.0 * math.pi * math.e), rel=1e-15) == K
    assert pytest.approx(0.6130, abs=5e-5) == K


def test_k_bounds_the_logarithmic_moments_of_every_thresholded_classifier() -> None:
    rng = np.random.default_rng(1)
    lams = np.concatenate((-np.geomspace(0.01, 8.0, 10), np.geomspace(0.01, 8.0, 10)))
    for _ in range(150):
        edges = np.sort(rng.normal(0.0, rng.uniform(0.3, 3.0), rng.integers(0, 7)))
        for lam in lams:
            # 0.4022 is the least constant that serves every classifier; K is the paper's, above it.
            assert log_mgf(edges.tolist(), 0.5, lam) <= 0.5 * 0.4023 * lam**2
    # sign(t), reversed within |t| < c, comes up to that constant: any smaller K would be wrong.
    grid = [(c, lam) for c in np.linspace(1.8, 2.5, 36) for lam in np.linspace(0.2, 8.0, 40)]
    worst = max(2.0 * log_mgf([-c, 0.0, c], -0.5, lam) / lam**2 for c, lam in grid)
    assert 0.4021 < worst < 0.4023 < K


def test_deviation_is_the_sub_gaussian_quantile() -> None:
    n = np.array([100.0, 1e5])
    assert np.allclose(deviation(n, math.log(1 / 2.5e-4)), [math.sqrt(2 * K * math.log(4000) / m) for m in n], rtol=1e-14)
    assert deviation(np.array([1e5]), math.log(4000))[0] == pytest.approx(0.0101, abs=5e-5)


@pytest.mark.parametrize("d", [1, 2, 10, 64, 784, 3072, 150_528])
@pytest.mark.parametrize("log_inverse", [0.1, 2.0, 9.0, 16.8, 60.0])
def test_product_quantile_is_the_best_chernoff_bound_rounded_up(d: int, log_inverse: float) -> None:
    best = best_product_exponent(d, log_inverse)
    assert best <= product_quantile(d, log_inverse) <= best * (1.0 + 5e-9)


def test_product_quantile_tends_to_the_square_root_from_above_for_many_dimensions() -> None:
    excess = [product_quantile(d, 14.0) / math.sqrt(2.0 * d * 14.0) - 1.0 for d in (10, 3072, 10**6)]
    assert excess[0] > 0.2
    assert 0.0 < excess[1] < 0.01
    assert 0.0 < excess[2] < 1e-4


@pytest.mark.parametrize("d", [1, 10, 3072])
def test_product_quantile_covers_gaussian_errors(d: int) -> None:
    rng = np.random.default_rng(2)
    # Given its length, eta2 times a standard normal is what eta1.eta2 is.
    product = np.sqrt(rng.chisquare(d, 400_000)) * rng.standard_normal(400_000)
    for alpha in (0.1, 0.01):
        t = product_quantile(d, math.log(1.0 / alpha))
        assert np.mean(product > t) <= alpha
        # A fourth of it (a missing factor of 4, or K for K squared) would not do.
        assert np.mean(product > 0.25 * t) > alpha


# Bounds of the gradient


def _threats(d: int) -> tuple[Threat, ...]:
    v = np.random.default_rng(d).standard_normal(d)
    if d == 1:
        return L1, L2, LINF, Direction(v, "along")
    mask = np.arange(d) % 8 == 0
    subspaces = (Subspace(mask, p, f"red{p:g}") for p in (1.0, 2.0, math.inf))
    return L1, L2, LINF, *subspaces, Direction(v, "along")


def _quantities(threats: Sequence[Threat]) -> list[Quantity]:
    return sorted({quantity for threat in threats for quantity in threat.needs()}, key=str)


def _direction(d: int) -> Array:
    w = 1.0 + np.random.default_rng(100 + d).random(d)
    return w / np.linalg.norm(w)


CLASSIFIERS = [
    *(half_space(_direction(d), 0.8) for d in (1, 8, 64)),
    *(slab(_direction(d), -0.8, 1.6) for d in (1, 8, 64)),
    *(ball(_direction(d) * shift, radius) for d, shift, radius in ((1, 0.5, 1.5), (8, 1.0, 3.4), (64, 1.5, 8.6))),
]
INDEX = {known.name: i for i, known in enumerate(CLASSIFIERS)}


@functools.cache
def _simulated(name: str) -> tuple[Known, tuple[Threat, ...], list[Moments], Statistics]:
    """RUNS independent samplings of one classifier."""
    known = CLASSIFIERS[INDEX[name]]
    threats = _threats(known.d)
    moments = known.moments(np.random.default_rng([3, INDEX[name]]), RUNS, N)
    return known, threats, moments, summarise(moments, threats, 1.0)


def _bound(statistics: Statistics, quantity: Quantity, alpha: float) -> Array:
    """One bound by itself, without what the others would lend it."""
    budget = Budget(0.5, {quantity: alpha}, {quantity: ("test",)})
    return gradient_bounds(statistics, budget, np.full(len(statistics), np.inf), "paper")[quantity]


def _miss_rate(name: str, quantity: Quantity) -> float:
    known, threats, _, statistics = _simulated(name)
    bound, truth = _bound(statistics, quantity, ALPHA), known.truth(quantity, threats)
    return float(np.mean(bound < truth if quantity.side == "upper" else bound > truth))


@pytest.mark.parametrize("name", INDEX)
def test_simulated_classifiers_have_the_stated_probability_and_gradient(name: str) -> None:
    known, _, moments, statistics = _simulated(name)
    assert statistics.count.sum() / statistics.n.sum() == pytest.approx(known.q, abs=4.0 * 0.5 / math.sqrt(RUNS * N))
    mean_uf, mean_u = (sum(getattr(m, field).sum(axis=0) for m in moments) / (RUNS * N) for field in ("sum_uf", "sum_u"))
    assert np.abs(mean_uf - known.y).max() < 5.0 / math.sqrt(RUNS * N)
    assert np.abs(mean_u).max() < 5.0 / math.sqrt(RUNS * N)
    assert float(np.linalg.norm(known.y)) > 0.02


@pytest.mark.parametrize("name", INDEX)
def test_every_bound_covers_its_norm(name: str) -> None:
    quantities = _quantities(_simulated(name)[1])
    assert {f"{q.side} {q.norm}" for q in quantities} == {"upper l1", "upper l2", "lower l2", "upper linf", "lower dot"}
    rates = {str(quantity): _miss_rate(name, quantity) for quantity in quantities}
    assert {what: rate for what, rate in rates.items() if rate > ALLOWED} == {}


KINDS = [
    *(Quantity(ALL, norm, side) for norm, side in (("l2", "upper"), ("l2", "lower"), ("linf", "upper"), ("l1", "upper"))),
    *(Quantity(part, norm, "upper") for part, norm in (("redinf", "l1"), ("red2", "l2"), ("red1", "linf"))),
    Quantity(complement("red2"), "l2", "lower"),
    Quantity("along", "dot", "lower"),
]


@pytest.mark.parametrize("quantity", KINDS, ids=str)
def test_a_twentieth_of_k_would_be_caught_by_the_coverage_test(quantity: Quantity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "K", K / 20.0)
    names = [name for name in INDEX if quantity in _quantities(_simulated(name)[1])]
    assert max(_miss_rate(name, quantity) for name in names) > ALLOWED


def test_the_coverage_test_uses_every_kind_of_bound() -> None:
    assert set(KINDS) <= {quantity for name in INDEX for quantity in _quantities(_simulated(name)[1])}


@pytest.mark.parametrize("name", ["half-space, d=8", "slab, d=64", "ball, d=1"])
def test_bounds_are_those_of_table_1_with_the_errata_corrected(name: str) -> None:
    _, threats, moments, statistics = _simulated(name)
    for alpha in (0.1, 1e-5):
        for quantity in _quantities(threats):
            bounds = _bound(statistics, quantity, alpha)
            for i in range(0, RUNS, 500):
                m = moments[i]
                z = [(m.sum_uf[half] - 0.5 * m.sum_u[half]) / m.n[half] for half in range(2)]
                for threat in threats:
                    if threat.name == quantity.part:
                        z = [a[threat.mask] for a in z] if hasattr(threat, "mask") else [np.array([threat.v @ a]) for a in z]
                    elif quantity.part == complement(threat.name):
                        z = [a[~threat.mask] for a in z]
                expected = paper_bound(quantity, z[0], z[1], int(m.n[0]), int(m.n[1]), K, alpha)
                if quantity == Quantity(ALL, "l2", "lower") or "all but" in quantity.part:
                    assert bounds[i] >= 0.0
                assert bounds[i] == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_bounds_tighten_as_samples_grow_and_meet_the_truth() -> None:
    known = half_space(_direction(8), 0.8)
    threats = _threats(8)
    widths = []
    for n in (10**4, 10**8, 10**12):
        statistics = summarise([known.exact_moments(n)], threats, 1.0)
        gaps = []
        for quantity in _quantities(threats):
            gap = float(_bound(statistics, quantity, 0.001)[0]) - known.truth(quantity, threats)
            gaps.append(gap if quantity.side == "upper" else -gap)
        assert min(gaps) >= -1e-9
        widths.append(max(gaps))
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 1e-4


def test_unknown_estimators_and_quantities_are_refused() -> None:
    statistics = summarise([half_space(_direction(8), 0.8).exact_moments(100)], (L2,), 1.0)
    budget = Budget(0.5, {}, {})
    with pytest.raises(ValueError, match="estimator 'best': expected one of paper"):
        gradient_bounds(statistics, budget, np.ones(1), "best")
    with pytest.raises(ValueError, match="no bound known for the lower l1 of all"):
        _bound(statistics, Quantity(ALL, "l1", "lower"), 0.1)


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
        Direction(rng.standard_normal(d), "along"),
    )
    known = Known("any", 0.5, y, lambda *_: (np.zeros(1, np.int64), y[None], y[None]))
    slack = {quantity: rng.choice([0.0, 0.1, 10.0]) * rng.random() for quantity in _quantities(threats)}
    true = {quantity: known.truth(quantity, threats) for quantity in slack}
    sign = {quantity: 1.0 if quantity.side == "upper" else -1.0 for quantity in slack}
    bounds = {quantity: np.array([true[quantity] + sign[quantity] * slack[quantity]]) for quantity in slack}
    rim = np.array([float(np.linalg.norm(y)) * (1.0 + rng.choice([0.0, 0.5]))])
    dimension = {ALL: d, "along": 1} | {f"red{i}": int(mask.sum()) for i in range(3)}
    dimension |= {complement(f"red{i}"): int((~mask).sum()) for i in range(3)}
    tight = tighten(bounds, dimension, rim)
    assert set(tight) == set(bounds)
    for quantity, bound in tight.items():
        assert sign[quantity] * (bound[0] - true[quantity]) >= -1e-12
        # A lower bound may fall to the rim (up to rounding here: the truth is not above it); nothing else moves outwards.
        assert sign[quantity] * (bound[0] - bounds[quantity][0]) <= 1e-12
        assert abs(bound[0]) <= rim[0] * (math.sqrt(d) if quantity.norm == "l1" else 1.0) * (1.0 + 1e-12)


def test_tighten_uses_each_norm_fact_by_hand() -> None:
    upper = {norm: Quantity(ALL, norm, "upper") for norm in ("l1", "l2", "linf")}
    lower, dot = Quantity(ALL, "l2", "lower"), Quantity("along", "dot", "lower")
    red, rest = Quantity("red", "l1", "upper"), Quantity(complement("red"), "l2", "lower")
    loose = {quantity: np.full(2, 9.0) for quantity in (*upper.values(), lower, red)} | {
        dot: np.full(2, -9.0),
        rest: np.full(2, -9.0),
    }
    dimension = {ALL: 16, "along": 1, "red": 4, complement("red"): 12}
    # Everything from the rim, which differs by input.
    tight = tighten(loose, dimension, np.array([0.3, 0.2]))
    expected = {upper["l1"]: 4.0, upper["l2"]: 1.0, upper["linf"]: 1.0, lower: 1.0, dot: -1.0, red: 2.0, rest: 0.0}
    for quantity, factor in expected.items():
        assert np.allclose(tight[quantity], factor * np.array([0.3, 0.2]), rtol=1e-14)
    # From the length of the whole gradient, and from that of the part where it is known.
    tight = tighten(loose | {upper["l2"]: np.array([0.1, 0.25])}, dimension, np.array([0.3, 0.2]))
    assert np.allclose(tight[red], [0.2, 0.4], rtol=1e-14)
    assert np.allclose(tight[upper["linf"]], [0.1, 0.2], rtol=1e-14)
    assert np.allclose(tight[dot], [-0.1, -0.2], rtol=1e-14)
    part = Quantity("red", "l2", "upper")
    assert np.allclose(tighten(loose | {part: np.full(2, 0.05)}, dimension, np.array([0.3, 0.2]))[red], 0.1, rtol=1e-14)


# From sums to scalars


def test_summarise_by_hand() -> None:
    mask = np.array([[True, False], [False, True]])
    moments = Moments(
        np.array([2, 4]),
        np.array([1, 3]),
        np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 0.0, -4.0, 8.0]]),
        np.array([[2.0, 0.0, 2.0, 0.0], [0.0, 8.0, 0.0, 8.0]]),
    )
    # X = (0, 2, 2, 4) / 2, Y = (4, -4, -4, 4) / 4.
    statistics = summarise([moments], (L2, Subspace(mask, 2, "red"), Direction([[0.0, 3.0], [0.0, 4.0]], "along")), 0.25)
    assert (len(statistics), statistics.sigma, statistics.d) == (1, 0.25, 4)
    assert statistics.count.tolist() == [[1, 3]]
    assert statistics.n.tolist() == [[2, 4]]
    pooled = np.array([4.0, -2.0, -2.0, 8.0]) / 6.0

    def fields(part: Part) -> list[float]:
        return [part.d, *(float(getattr(part, name)[0]) for name in ("inner", "x_l2", "y_l2", "l1", "l2", "linf"))]

    def norms(a: npt.NDArray[np.float64]) -> list[float]:
        return [np.abs(a).sum(), math.hypot(*a), np.abs(a).max()]

    expected = {
        ALL: [4, 0.0, math.sqrt(6.0), 2.0, *norms(pooled)],
        "red": [2, 2.0, 2.0, math.sqrt(2.0), *norms(pooled[[0, 3]])],
        complement("red"): [2, -2.0, math.sqrt(2.0), math.sqrt(2.0), *norms(pooled[[1, 2]])],
        "along": [1, 2.2 * 0.2, 2.2, 0.2, *[abs(0.6 * pooled[1] + 0.8 * pooled[3])] * 3],
    }
    assert set(statistics.parts) == set(expected)
    for name, values in expected.items():
        assert fields(statistics.parts[name]) == pytest.approx(values, rel=1e-14, abs=1e-15)
    assert statistics.parts["along"].dot.tolist() == pytest.approx([0.6 * pooled[1] + 0.8 * pooled[3]], rel=1e-14)


def test_summarise_stacks_inputs_in_order() -> None:
    _, threats, moments, together = _simulated("slab, d=8")
    for i in (0, 7, RUNS - 1):
        alone = summarise([moments[i]], threats, 1.0)
        assert alone.count.tolist() == together.count[i : i + 1].tolist()
        for name, part in alone.parts.items():
            assert part.inner[0] == together.parts[name].inner[i]
            assert part.l1[0] == together.parts[name].l1[i]


def test_a_subspace_of_every_coordinate_has_bounds_too() -> None:
    known = half_space(_direction(8), 0.8)
    threats = (L2, Subspace(np.ones(8, dtype=bool), 1, "every"))
    statistics = summarise([known.exact_moments(10_000)], threats, 1.0)
    budget = Budget(0.5, dict.fromkeys(_quantities(threats), 0.01), {})
    bounds = gradient_bounds(statistics, budget, np.ones(1), "paper")
    assert bounds[Quantity("every", "linf", "upper")][0] >= np.abs(known.y).max()
    assert all(bound[0] == 0.0 for quantity, bound in bounds.items() if quantity.part == complement("every"))
