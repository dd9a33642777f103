from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from certlut.bounds.binomial import least_n, lower_probability, upper_probability
from reference.naive_statistics import exact_tail, long_tail


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


@pytest.mark.parametrize(
    ("n", "count", "alpha"),
    [
        *[(n, n - against, alpha) for n in (10**6, 10**8, 10**9) for against in (998, 999, 1000) for alpha in (9e-4, 9e-7)],
        (932_536_611, 932_535_612, 9e-3),
        (3332, 3294, 3.5e-190),
        (639_744, 639_718, 6.3e-199),
    ],
)
def test_lower_bounds_are_safe_and_tight_where_scipys_inverse_is_wrong(n: int, count: int, alpha: float) -> None:
    against = 1.0 - float(lower_probability(count, n, alpha))
    # The votes against are so few that their tail is a short sum.
    assert few_tail(n, n - count, against) <= alpha
    assert few_tail(n, n - count, against - 1e-9 * against - 3e-15) > alpha


@pytest.mark.parametrize(("n", "against"), [(10**6, 1000), (10**8, 1000), (10**9, 1000), (10**8, 999)])
def test_upper_bounds_are_safe_and_tight_there_too(n: int, against: int) -> None:
    low = 1.0 - float(upper_probability(n - against, n, 9e-4))
    assert 1 - few_tail(n, against - 1, low) <= 9e-4
    assert 1 - few_tail(n, against - 1, low + 1e-9 * low + 3e-15) > 9e-4


def few_tail(n: int, most: int, p: float) -> mpmath.mpf:
    """P(Bin(n, p) <= most) in 40 digits."""
    with mpmath.workdps(40):
        p = mpmath.mpf(p)
        term = total = mpmath.power(1 - p, n)
        for k in range(most):
            term *= (n - k) * p / ((k + 1) * (1 - p))
            total += term
        return total


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
    count, n = np.array([[40, 100], [3, 0], [3, 99]]), np.array([40, 100])
    for bound in (lower_probability, upper_probability):
        values = bound(count, n, 0.01)
        assert values.shape == (3, 2)
        assert values.tolist() == [[float(bound(int(count[i, j]), int(n[j]), 0.01)) for j in range(2)] for i in range(3)]


@pytest.mark.parametrize("alpha", [0.5, 0.25, 2.0**-10, 2.0**-30, 0.1, 0.05, 0.001, 9e-4, 1e-7, 0.9, 0.51, 0.49, 1e-300])
def test_least_n_is_exact(alpha: float) -> None:
    n = least_n(alpha)
    assert Fraction(alpha) * 2**n > 1
    assert n == 1 or Fraction(alpha) * 2 ** (n - 1) <= 1


@pytest.mark.parametrize("alpha", [0.4, 0.05, 0.001, 9e-4, 1e-7])
def test_least_n_unanimous_votes_certify_and_one_fewer_do_not(alpha: float) -> None:
    n = least_n(alpha)
    assert lower_probability(n, n, alpha) > 0.5 >= lower_probability(n - 1, n - 1, alpha)
