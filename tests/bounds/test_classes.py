import math

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import beta, binom

from certlut.bounds.binomial import lower_probability
from certlut.bounds.classes import DECIDED, ClassBounds, class_bounds, runner_up, two_class_radius, undecided
from certlut.statistics.votes import REST, kept_classes

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SIGMA, ALPHA = 0.4, 1e-6


def certify(counts: Counts, level: float, level_others: float, label: int = 0) -> ClassBounds:
    """Of votes per class, shape (N, classes)."""
    kept = [kept_classes(row, label) for row in counts]
    return class_bounds(np.stack([ids for ids, _ in kept]), np.stack([votes for _, votes in kept]), SIGMA, level, level_others)


# Linear models whose smoothed radius is known


def bands(a: float, c: float) -> Array:
    """Votes of classes 0 to 2 where the scores are -t - a, 0 and t - c along a line, at t = 0 and sigma = 1."""
    return np.array([ndtr(-a), ndtr(c) - ndtr(-a), ndtr(-c)])


@pytest.mark.parametrize("n", [5000, 200_000])
@pytest.mark.parametrize(("a", "c"), [(0.05, 0.3), (0.2, 0.35), (-0.3, 0.6), (-1.0, 1.02)])
def test_the_true_radius_of_three_bands_is_almost_reached_and_never_passed(a: float, c: float, n: int) -> None:
    # A step s up the line leaves P(t < -a - s) to class 0 and P(t > c - s) to class 2: equal at s = (c - a) / 2.
    p, true = bands(a, c), 0.5 * (c - a)
    assert bands(a + true, c - true) == pytest.approx(np.sort(bands(a + true, c - true))[[1, 0, 2]])
    counts = np.random.default_rng([n, round(100 * c)]).multinomial(n, p, size=300)
    found = certify(counts, ALPHA, ALPHA)
    assert (found.radius >= 0.0).all()
    assert (found.radius <= SIGMA * true).all()
    # Both quantiles at twice their 1e-6 deviations.
    density = np.exp(-0.5 * ndtri(p) ** 2) / math.sqrt(2.0 * math.pi)
    width = 0.5 * float((2.0 * 4.9 * np.sqrt(p * (1.0 - p) / n) / density)[[0, 2]].sum())
    assert (found.radius >= SIGMA * (true - width)).all()
    assert n == 5000 or (found.runner_up == 2).all()


@pytest.mark.parametrize("corner_count", [3, 6])
def test_corners_of_a_simplex_are_never_certified_beyond_their_bisectors(corner_count: int) -> None:
    # Reflection in the plane between two corners swaps their classes: there, and only there, the smoothed scores tie.
    rng, n, certified, minority = np.random.default_rng(corner_count), 4000, 0, 0
    corners = np.linalg.qr(np.column_stack((np.ones(corner_count), rng.standard_normal((corner_count, corner_count - 1)))))[0][
        :, 1:
    ]
    for _ in range(300):
        x = corners[0] * rng.uniform(0.1, 1.2) + 0.1 * rng.standard_normal(corner_count - 1)
        label = int((corners @ x).argmax())
        noisy = x + SIGMA * rng.standard_normal((n, corner_count - 1))
        counts = np.bincount((noisy @ corners.T).argmax(axis=1), minlength=corner_count)
        others = np.delete(corners, label, axis=0)
        true = float(((corners[label] - others) @ x / np.linalg.norm(corners[label] - others, axis=1)).min())
        found = certify(counts[None], ALPHA, ALPHA, label)
        assert 0.0 <= found.radius[0] <= true
        certified += int(found.radius[0] > 0.0)
        minority += int(found.radius[0] > 0.0 and 2 * counts[label] < n)
    assert certified > 100
    assert minority > 10


# Against an independent computation


def naive(counts: list[int], label: int, sigma: float, level: float, level_others: float) -> float:
    n, own, other = sum(counts), counts[label], max(count for place, count in enumerate(counts) if place != label)
    low = float(beta.ppf(level, own, n - own + 1)) if own else 0.0
    high = float(beta.isf(level_others, other + 1, n - other)) if other < n else 1.0
    with mpmath.workdps(40):
        a, b = mpmath.mpf(low), mpmath.mpf(min(high, 1.0 - low))
        if a <= b:
            return 0.0
        quantiles = [mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1) for p in (a, b)]
        return float(sigma * (quantiles[0] - quantiles[1]) / 2)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.integers(0, 3000), min_size=2, max_size=6).filter(any), st.data(), st.floats(1e-9, 0.4), st.floats(1e-9, 0.4))
def test_radii_are_those_of_the_formula(counts: list[int], data: st.DataObject, level: float, level_others: float) -> None:
    label = data.draw(st.integers(0, len(counts) - 1))
    found = certify(np.array([counts]), level, level_others, label)
    expected = naive(counts, label, SIGMA, level, level_others)
    assert found.radius[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.radius[0] <= expected * (1.0 + 1e-9) + 1e-12
    others = [count for place, count in enumerate(counts) if place != label]
    assert found.count[0] == max(others)
    assert found.runner_up[0] == next(i for i, count in enumerate(counts) if i != label and count == max(others))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(1e-300, 1.0), st.floats(1e-300, 1.0), st.floats(-15.0, -1.0), st.booleans())
def test_the_radius_is_rounded_down(low: float, high: float, gap: float, near: bool) -> None:
    if near:
        high = low * (1.0 - 10.0**gap)
    low = min(low, 1.0 - 2.0**-53)
    radius = float(two_class_radius(np.array(low), np.array(high), SIGMA))
    if low <= high:
        assert radius == 0.0
        return
    with mpmath.workdps(60):
        a, b = (-mpmath.sqrt(2) * _erfcinv(2 * mpmath.mpf(p)) for p in (low, high))
        exact = mpmath.mpf(SIGMA) * (a - b) / 2
        assert 0.0 <= radius <= exact
        assert radius >= exact * (1 - mpmath.mpf("1e-14")) - mpmath.mpf("1e-14") * (abs(a) + abs(b))


def _erfcinv(x: mpmath.mpf) -> mpmath.mpf:
    """The y with erfc(y) = x, 0 < x < 2."""
    if x > 1:
        return -_erfcinv(2 - x)
    y = mpmath.mpf(max(-float(ndtri(float(x) / 2)), 1e-300)) / mpmath.sqrt(2)
    for _ in range(4):
        # Halley's method.
        step = (mpmath.erfc(y) - x) / (-2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-y * y))
        y -= step / (1 + y * step)
    return y


def test_a_majority_loses_nothing_against_the_rest_together() -> None:
    counts = np.random.default_rng(1).multinomial(1000, [0.7, 0.2, 0.07, 0.03], size=50)
    found = certify(counts, 0.001, 1e-9)
    q = lower_probability(counts[:, 0], 1000, 0.001)
    assert (q > 0.5).all()
    assert (found.radius >= SIGMA * -ndtri(1.0 - q) * (1.0 - 1e-12)).all()
    # Two classes: the same.
    two = np.stack((counts[:, 0], 1000 - counts[:, 0]), axis=1)
    assert certify(two, 0.001, 1e-9).radius == pytest.approx(SIGMA * -ndtri(1.0 - q), rel=1e-11)


# How often it fails


@pytest.mark.parametrize("p", [[0.4, 0.3, 0.3], [0.3, *[0.07] * 10], [0.45, 0.35, 0.2], [0.1, *[0.0225] * 40]])
def test_the_runner_up_bounds_every_class_without_a_union(p: list[float]) -> None:
    runs, level, n = 20_000, 0.1, 400
    counts = np.random.default_rng(len(p)).multinomial(n, p, size=runs)
    found = certify(counts, level, level)
    missed = float((found.p_upper < max(p[1:])).mean())
    assert missed <= level + 4.0 * math.sqrt(level / runs)
    if p[1] > p[2]:
        # A single strong class: nearly all of the level is used, as far as votes are whole numbers.
        allowed = binom.cdf(np.arange(n), n, p[1])
        assert missed >= 0.8 * float(allowed[allowed <= level].max())


def test_a_wrong_probability_would_be_seen() -> None:
    counts = np.random.default_rng(7).multinomial(400, [0.4, 0.35, 0.25], size=5000)
    found = certify(counts, 0.1, 0.9)
    assert float((found.p_upper < 0.35).mean()) > 0.5


# Abstaining


def test_it_abstains_where_the_class_does_not_lead_for_sure() -> None:
    counts = np.array([[500, 500, 0], [505, 495, 0], [0, 10, 990], [0, 0, 1000], [400, 300, 300], [1000, 0, 0]])
    found = certify(counts, 0.001, 0.001)
    assert (found.radius[:4] == 0.0).all()
    assert (found.radius[4:] > 0.0).all()
    assert (found.p_lower[:4] <= found.p_upper[:4]).all()
    # Most votes, but fewer than half, certify where the rest is divided.
    assert found.p_upper[4] < found.p_lower[4] < 0.5
    assert found.p_upper[5] == pytest.approx(1.0 - found.p_lower[5], rel=1e-9)


def test_zero_votes_still_bound_a_class() -> None:
    found = certify(np.array([[10, 0]]), 0.05, 0.05)
    assert 0.0 < found.p_upper[0] < 0.27
    assert found.p_lower[0] == pytest.approx(0.05**0.1, rel=1e-9)


def test_the_rest_together_is_no_class() -> None:
    # Twenty classes: ten have columns.
    counts = np.array([300, 200, *[40] * 18])
    ids, votes = kept_classes(counts, 0)
    assert ids[-1] == REST
    assert votes[-1] == 400
    assert [a.tolist() for a in runner_up(ids[None], votes[None])] == [[1], [200]]
    all_of_them = class_bounds(np.arange(20)[None], counts[None], SIGMA, 0.01, 0.01)
    assert class_bounds(ids[None], votes[None], SIGMA, 0.01, 0.01).radius == all_of_them.radius > 0.0
    # The certified class is none of the others, however many votes it has or lacks.
    assert [a.tolist() for a in runner_up(np.array([[2, 0, 1]]), np.array([[1, 5, 9]]))] == [[1], [9]]


def test_level_is_spent_where_the_selection_votes_are_divided() -> None:
    assert DECIDED == 0.75
    # Votes for the class, and all: the last were not kept.
    assert undecided(np.array([[74, 100], [75, 100], [40, 100], [100, 100], [0, 0]])).tolist() == [True, False, True, False, False]
