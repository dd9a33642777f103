import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from certlut import Table
from certlut.evaluate import evaluate
from certlut.statistics.summary import summarise
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.projections import Projection
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, Threat, containment
from reference.naive_statistics import Array, Known, half_space
from reference.simulate import sampled


def _norm(y: Array, k: int) -> float:
    """Over every choice of k coordinates."""
    return max(float(np.linalg.norm(some)) for some in itertools.combinations(y, min(k, len(y))))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_kappa_and_m1_bound_every_perturbation_of_k_coordinates_and_one_attains_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 7))
    y, k = rng.standard_normal(d) * rng.choice([0.1, 1.0], d), int(rng.integers(1, d + 2))
    threat = Sparse(k)
    known = Known("known", 0.5, y, lambda *_: (np.zeros(1, np.int64), y[None], y[None]))
    m1, m2 = (float(a[0]) for a in threat.cut({q: np.array([known.truth(q, [threat])]) for q in threat.needs()}, d))
    assert threat.kappa(d) == 1.0
    assert m1 == pytest.approx(-_norm(y, k), rel=1e-12)
    for some in itertools.combinations(range(d), min(k, d)):
        delta = np.zeros((100, d))
        delta[:, some] = rng.standard_normal((100, len(some)))
        delta /= np.linalg.norm(delta, axis=1, keepdims=True)
        assert (delta @ y >= m1 - 1e-12).all()
    worst = np.zeros(d)
    order = np.argsort(-np.abs(y))[: min(k, d)]
    worst[order] = -y[order] / np.linalg.norm(y[order])
    assert worst @ y == pytest.approx(m1, rel=1e-12)
    assert np.linalg.norm(y - m1 * worst) == pytest.approx(m2, abs=1e-7)


def test_one_coordinate_needs_the_largest_alone_and_more_their_own_norm() -> None:
    assert Sparse(1).parts() == {}
    assert Sparse(1).needs() == (Quantity(ALL, "linf", "upper"), LENGTH)
    (name, by), *_ = Sparse(3).parts().items()
    assert (name, by.largest) == ("sparse3", 3)
    assert Sparse(3).needs() == (Quantity("sparse3", "sparse", "upper"), LENGTH)
    y = np.array([0.1, -3.0, 0.0, 4.0, 2.0])
    for k in range(1, 8):
        assert Projection(largest=k).norm(y) == pytest.approx(_norm(y, k), rel=1e-14)
    assert len({Projection(largest=k).key for k in (0, 1, 2, 12)}) == 4


def test_sparse_sets_lie_in_balls_and_balls_of_few_coordinates_in_them() -> None:
    for k in (1, 2, 3, 9):
        inner, few = Sparse(k), min(k, 5)
        for outer, factor in ((L2, 1.0), (L1, math.sqrt(few)), (LINF, 1.0), (Lp(1.5), few ** (1 / 6)), (Lp(4), 1.0)):
            assert containment(inner, outer, 5) == pytest.approx(factor, rel=1e-14)
        for j in (1, 2, 3, 9):
            assert containment(inner, Sparse(j), 5) == (1.0 if few <= min(j, 5) else math.inf)
        for inside in (Subspace([True, True, False, False, False], 2, "two"), Direction([1.0, 1.0, 0, 0, 0], "ray")):
            assert containment(inside, inner, 5) == (pytest.approx(1.0) if k > 1 else math.inf)
        assert containment(inner, Subspace([True, True, False, False, False], 2, "two"), 5) == math.inf
    # The whole of R^d is sparse in no more than d coordinates.
    for ball, factor in ((L1, 1.0), (L2, 1.0), (LINF, math.sqrt(5.0))):
        assert containment(ball, Sparse(4), 5) == math.inf
        assert containment(ball, Sparse(5), 5) == pytest.approx(factor)
    assert containment(Subspace([True, True, False, False, False], math.inf, "two"), Sparse(2), 5) == pytest.approx(math.sqrt(2.0))
    assert containment(Line([0.0, 2.0, 0.0, 0.0, 0.0], "axis"), Sparse(1), 5) == 1.0


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2", math.nan])
def test_a_number_of_coordinates_that_is_not_one_is_refused(k: object) -> None:
    with pytest.raises(ValueError, match=r"k = .*, expected a whole number of coordinates, 1 or more"):
        Sparse(k)  # type: ignore[arg-type]


@pytest.mark.parametrize(("q", "n"), [(0.8, 20_000), (0.97, 50_000)])
def test_radii_of_a_linear_classifier_are_below_its_own_and_fall_with_k(q: float, n: int, shipped: Table) -> None:
    # Components of many sizes: margin over the l2 norm of the k largest.
    w = 0.7 ** np.arange(8.0)
    w /= np.linalg.norm(w)
    margin = float(ndtri(q))
    threats: list[Threat] = [L1, L2, *(Sparse(k) for k in (1, 2, 4, 8))]
    statistics = sampled(half_space(w, margin), threats, 4, n, 2)
    radius = evaluate(statistics, threats, 0.001, "adaptive", shipped).radius
    for k in (1, 2, 4, 8):
        assert (radius[f"sparse{k}"] <= margin / _norm(w, k)).all()
    assert (radius["sparse1"] >= radius["sparse2"]).all()
    assert (radius["sparse2"] >= radius["sparse4"]).all()
    assert (radius["sparse4"] >= radius["l2"]).all()
    assert (radius["sparse1"] >= radius["l1"]).all()
    assert radius["sparse8"] == pytest.approx(radius["l2"], rel=1e-12)
    assert (radius["sparse1"] > 1.05 * radius["l2"]).all()
    # With exact moments the first-order radius is close to what the table says of the exact norms.
    exact = evaluate(summarise([half_space(w, margin).exact_moments(10**12)], threats, 1.0), threats, 0.001, "adaptive", shipped)
    y = np.linalg.norm(half_space(w, margin).y)
    for k in (1, 2, 4):
        m1 = -float(y) * _norm(w, k)
        best = float(shipped.radius(q, m1, math.sqrt(float(y) ** 2 - m1**2)))
        assert exact.radius[f"sparse{k}"][0] == pytest.approx(best, rel=2e-3)


def test_the_lower_norm_in_place_of_the_upper_one_certifies_too_much(shipped: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    # All of the gradient in two coordinates: the sparse radius is the l2 radius, and there is nothing to give away.
    known, threat = half_space(np.array([0.6, 0.8, 0.0, 0.0]), 0.9), Sparse(2)
    statistics = sampled(known, [threat], 40, 4000, 5)

    def wrong() -> float:
        return float(np.mean(evaluate(statistics, [threat], 0.01, "adaptive", shipped).radius["sparse2"] > 0.9))

    assert wrong() == 0.0
    monkeypatch.setattr("certlut.bounds.adaptive.tau", lambda n, *_: -0.05 * np.ones_like(n))
    monkeypatch.setattr("certlut.evaluate.lower_probability", lambda count, n, alpha: np.full(len(count), known.q))
    assert wrong() > 0.5


@pytest.mark.parametrize("k", [2, 5])
def test_the_norm_of_k_coordinates_is_at_most_root_k_times_the_largest(k: int, shipped: Table) -> None:
    # Both bounds are paid for where l1 is declared too; the better one counts.
    known = half_space(np.ones(64) / 8.0, 1.3)
    statistics = sampled(known, [L1, Sparse(k)], 3, 20_000, 6)
    bounds = evaluate(statistics, [L1, Sparse(k)], 0.001, "adaptive", shipped).bounds
    own, largest = bounds[Quantity(f"sparse{k}", "sparse", "upper")], bounds[Quantity(ALL, "linf", "upper")]
    assert (own <= math.sqrt(k) * largest * (1.0 + 1e-12)).all()
    assert (own >= math.sqrt(k) * np.abs(known.y).max()).all()
