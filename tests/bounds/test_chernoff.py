import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import ndtri
from scipy.stats import norm

from certlut.bounds.chernoff import GRID, _curve, _noise, affine_bound, constant_at, peak_of, tail_square, tau
from certlut.bounds.paper import deviation
from reference.naive_statistics import Array, best_b, long_excess, rare_exponent, rare_gain, rare_tau, variance

L = math.log(4000)


def _cases(seed: int, count: int) -> list[tuple[float, float, float, float]]:
    """(n, log(1/a), b, eps) over all that a caller may ask."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(count):
        eps = 1.0 if i % 6 == 0 else 10.0 ** rng.uniform(-7.0, math.log10(0.5))
        b = rng.choice([0.5, 1.0, float(best_b(eps)), 1.0 - 10.0 ** rng.uniform(-4.0, -0.31)]) if eps < 1.0 else 0.5
        cases.append((10.0 ** rng.uniform(2.0, 7.0), -math.log(10.0 ** rng.uniform(-9.0, math.log10(0.2))), float(b), eps))
    return cases


# Against the worst case


@pytest.mark.parametrize(("n", "log_inverse", "b", "eps"), _cases(0, 30))
def test_tau_is_that_of_the_worst_votes_found_by_brute_force(n: float, log_inverse: float, b: float, eps: float) -> None:
    # The reference is within 1e-7.
    worst = rare_tau(log_inverse / n, b, eps)
    assert worst * (1.0 - 1e-7) <= tau(n, log_inverse, b, eps) <= worst * (1.0 + 1e-6)


@pytest.mark.parametrize("x", [1e-7, 1e-5, 1e-3, 0.1, 3.0])
def test_tau_is_the_closed_form_where_nothing_is_known(x: float) -> None:
    def bound(lam: float) -> float:
        # g = 1{t < 0}.
        a = math.expm1(lam**2 / 8.0)
        return (a + (1.0 + a) * math.erf(lam / math.sqrt(8.0)) - lam / math.sqrt(2.0 * math.pi) + x) / lam

    normal = math.sqrt(8.0 * x)
    worst = minimize_scalar(bound, bounds=(0.3 * normal, 1.5 * normal), method="bounded", options={"xatol": 1e-6 * normal}).fun
    assert tau(1.0, x, 0.5, 1.0) == pytest.approx(worst, rel=6e-7)
    assert tau(1.0, x, 0.5, 1.0) >= worst * (1.0 - 1e-10)


def test_tau_tends_to_that_of_the_largest_variance() -> None:
    for _, _, b, eps in _cases(1, 30):
        if eps > 1e-4:
            assert tau(1e11, L, b, eps) == pytest.approx(math.sqrt(2.0 * float(variance(eps, b)) * L / 1e11), rel=2e-4)


def test_figures_of_the_theory() -> None:
    assert tau(1e5, L, 0.5, 1.0) == pytest.approx(0.00646, abs=5e-6)
    assert tau(1e5, L, 1.0, 0.01) == pytest.approx(0.00375, abs=5e-6)
    assert tau(1e5, L, 1.0, 0.001) == pytest.approx(0.0015, abs=5e-5)
    # Better still with b between.
    assert tau(1e5, L, best_b(0.01), 0.01) == pytest.approx(0.003587, abs=1e-6)
    # Below the constant that serves every lam, and the paper's.
    for n in (1e3, 1e4, 1e5, 1e6):
        assert tau(n, L, 0.5, 1.0) < math.sqrt(2.0 * 0.4022 * L / n) < deviation(np.array([n]), L)[0]


# Rounding


@pytest.fixture(scope="module")
def roundings() -> list[tuple[float, float, float, float]]:
    """(computed C, its error bound, exact C, h) at random lam, b and thresholds."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(24):
        lam, left = 10.0 ** rng.uniform(-4.0, 0.6), rng.choice([0.0, rng.uniform(0.0, 5.0)])
        b = float(rng.choice([0.5, 0.501, 1.0, rng.uniform(0.5, 1.0)]))
        value, error, h, _, _ = constant_at(lam, left, b, peak_of(b))
        found.append((value, error, float(long_excess(lam, h, b) - value), h))
    return found


def test_the_constant_of_a_plane_is_exact_within_its_rounding_bound(roundings: list[tuple[float, ...]]) -> None:
    for value, error, gap, _ in roundings:
        assert abs(gap) <= error <= 2e-14 + 1e-10 * value


def test_the_noise_of_the_curve_covers_its_rounding_and_that_of_its_argument() -> None:
    rng = np.random.default_rng(10)
    shares = []
    for _ in range(2000):
        lam, edge = 10.0 ** rng.uniform(-5.0, 1.0), rng.uniform(-9.0, 12.0)
        b = float(rng.choice([0.5, 1.0, rng.uniform(0.5, 1.0)]))
        with mpmath.workdps(40):
            s, c = mpmath.mpf(lam) * mpmath.mpf(edge), mpmath.mpf(b)
            exact = mpmath.exp(-c * s) - mpmath.exp((1 - c) * s) + s
            shares.append(float(abs(_curve(lam * edge, b) - exact)) / _noise(lam * edge, b))
    assert 0.02 < max(shares) < 0.5


def test_without_the_rounding_bound_affine_bounds_would_be_too_low(roundings: list[tuple[float, ...]]) -> None:
    assert sum(gap > 0.0 for _, _, gap, _ in roundings) >= 6


@pytest.mark.parametrize(("n", "log_inverse", "b", "eps"), _cases(3, 18))
def test_affine_bounds_bound_the_exact_chernoff_exponent_in_long_arithmetic(
    n: float, log_inverse: float, b: float, eps: float
) -> None:
    slope, h, constant = affine_bound(log_inverse / n, b, eps)
    lam = 1.0 / slope
    assert h >= 0.0
    exact = long_excess(lam, h, b)
    # lam is rounded once more here.
    assert exact * (1.0 - 1e-15) <= constant <= exact * (1.0 + 1e-6) + 2e-14


# Attained


@pytest.mark.parametrize(
    ("lam", "b", "eps"), [(0.05, 0.5, 1.0), (0.3, 0.5, 0.1), (0.1, 0.9, 0.05), (0.4, 0.92, 0.03), (0.2, 1.0, 0.3)]
)
def test_sampled_worst_votes_attain_the_exponent(lam: float, b: float, eps: float) -> None:
    x = minimize_scalar(
        lambda log_x: abs(1.0 / affine_bound(math.exp(log_x), b, eps)[0] - lam), bounds=(-14.0, 1.0), method="bounded"
    ).x
    slope, h, constant = affine_bound(math.exp(x), b, eps)
    psi = constant + h * eps
    # Stratified: one draw in each of a million equal parts.
    t = ndtri((np.arange(10**6) + np.random.default_rng(4).random(10**6)) / 1e6)
    against = rare_gain(t, 1.0 / slope, b) > h
    assert against.mean() <= eps * (1.0 + 2e-4) + 1e-6
    # E exp(lam v.Z) - 1 - lam v.y, with v.Z for v.y.
    s = t * (~against - b) / slope
    drawn = float(np.mean(np.expm1(s) - s))
    assert drawn == pytest.approx(psi, rel=5e-4)


def _stray(against: Callable[[Array], Array], b: float, n: int, runs: int) -> Array:
    """v.(Zbar - y) of `runs` samplings of n votes that are 0 where `against`, v along the only direction they depend on."""
    rng = np.random.default_rng(5)
    grid = np.arange(-12.0, 12.0, 1e-4) + 5e-5
    total, y = np.empty(runs), -1e-4 * float(np.sum(grid * norm.pdf(grid) * against(grid)))
    for start in range(0, runs, 5000):
        t = rng.standard_normal((min(5000, runs - start), n))
        total[start : start + len(t)] = (t * (~against(t) - b)).mean(axis=1)
    return total - y


@pytest.mark.parametrize(("b", "eps"), [(0.5, 1.0), (0.56, 0.1), (0.9155, 0.01), (1.0, 0.01)])
def test_tau_covers_the_worst_votes_and_half_of_it_would_not(b: float, eps: float) -> None:
    n, runs, a = 300, 20_000, 0.05
    bound = float(tau(n, math.log(1.0 / a), b, eps))
    slope, h, _ = affine_bound(math.log(1.0 / a) / n, b, eps)

    def against(t: Array) -> Array:
        # With nothing known, the largest variance: y = 0.
        return rare_gain(t, 1.0 / slope, b) > h if eps < 1.0 else (t > 0) ^ (np.abs(t) > math.sqrt(2.0 * math.log(2.0)))

    stray = _stray(against, b, n, runs)
    assert abs(stray.mean()) < 5.0 * stray.std() / math.sqrt(runs)
    assert (stray > bound).mean() <= a
    assert (stray > 0.5 * bound).mean() > a


# Order


def test_tau_falls_with_n_and_rises_with_eps_and_confidence() -> None:
    rng = np.random.default_rng(6)
    for n, log_inverse, b, eps in _cases(7, 40):
        more = 1.0 + 10.0 ** rng.uniform(-2.0, 1.0)
        here = float(tau(n, log_inverse, b, eps))
        assert tau(n * more, log_inverse, b, eps) < here < tau(n, log_inverse * more, b, eps)
        assert here <= tau(n, log_inverse, b, min(eps * more, 1.0))


def test_neighbours_of_a_grid_point_use_its_plane_safely_and_tightly() -> None:
    # Between grid points of eps and x: every affine bound bounds every tau, and the nearest is good to 1e-6.
    log_eps, log_x = (np.linspace(start, start + 2.0 / GRID, 15) for start in (-5.0, -9.0))
    eps, x = (a.ravel() for a in np.meshgrid(np.exp(log_eps), np.exp(log_x)))
    values = tau(1.0, x, 0.9, eps)
    for e, y, value in zip(eps, x, values, strict=True):
        slope, h, constant = affine_bound(y, 0.9, e)
        best = (constant + h * e + y) * slope
        assert best * (1.0 - 1e-7) <= value <= best * (1.0 + 1e-6)
        assert ((constant + h * eps + x) * slope >= values * (1.0 - 1e-6)).all()


# The choice of b


def test_variance_is_the_largest_second_moment() -> None:
    for _, _, b, eps in _cases(8, 20):
        z = norm.isf(0.5 * eps)
        rare = 2.0 * quad(lambda t: t * t * norm.pdf(t), z, z + 15.0)[0]
        assert tail_square(np.asarray(eps)) == pytest.approx(rare, rel=1e-9)
        assert variance(eps, b) == pytest.approx((1.0 - b) ** 2 * (1.0 - rare) + b * b * rare, rel=1e-9)
        # The exponent starts like it.
        assert rare_exponent(1e-4, b, eps) == pytest.approx(0.5e-8 * float(variance(eps, b)), rel=1e-3)


def test_best_b_has_the_least_variance() -> None:
    eps = np.concatenate(([0.0, 1.0], np.geomspace(1e-9, 0.5, 50)))
    ladder = np.linspace(0.5, 1.0, 2001)
    least = variance(eps[:, None], ladder)
    assert np.abs(best_b(eps) - ladder[least.argmin(axis=1)]).max() <= 2.6e-4
    assert (variance(eps, best_b(eps)) <= least.min(axis=1)).all()
    assert best_b(0.2) == 0.5 < best_b(0.1)


# Arguments


def test_tau_is_vectorised() -> None:
    rng = np.random.default_rng(9)
    n, eps = rng.integers(100, 10**6, (4, 1, 3)), 10.0 ** rng.uniform(-6.0, 0.0, (5, 1))
    b = rng.choice([0.5, 0.9, 1.0], (4, 5, 3))
    values = tau(n, L, b, eps)
    assert values.shape == (4, 5, 3)
    for i, j, k in np.ndindex(4, 5, 3):
        assert values[i, j, k] == tau(n[i, 0, k], L, b[i, j, k], eps[j, 0])
    assert tau(100, L, 0.5, 1.0).shape == ()
    assert tau(np.zeros(0) + 100, L, 0.5, np.zeros((2, 0))).shape == (2, 0)


def test_tau_of_no_votes_against_is_finite_and_positive() -> None:
    assert 0.0 < tau(1e5, L, 1.0, 0.0) == tau(1e5, L, 1.0, 1e-12) < tau(1e5, L, 1.0, 1e-11)
    assert np.isfinite(tau(1.0, [1e-9, 1e-3, 1.0, 100.0, 1e4], 0.7, [[1e-12], [0.3], [1.0]])).all()
    assert (tau(1e12, L, [0.5, 0.8], 0.2) < 1.001 * np.sqrt(2.0 * variance(0.2, [0.5, 0.8]) * L / 1e12)).all()


@pytest.mark.parametrize(
    ("n", "log_inverse", "b", "eps", "message"),
    [
        (0, L, 0.5, 1.0, "n from 0.0 to 0.0: expected finite numbers of at least 1"),
        ([5.0, math.nan], L, 0.5, 1.0, "n from nan"),
        (5, 0.0, 0.5, 1.0, "log_inverse from 0.0 to 0.0: expected finite positive"),
        (5, [1.0, math.inf], 0.5, 1.0, "log_inverse from 1.0 to inf"),
        (5, L, [0.5, 0.4], 1.0, "b from 0.4 to 0.5: expected numbers from 0.5 to 1"),
        (5, L, 1.1, 1.0, "b from 1.1"),
        (5, L, 0.5, -1e-9, "eps from -1e-09 to -1e-09: expected numbers from 0.0 to 1"),
        (5, L, 0.5, [0.2, math.nan], "eps from nan"),
        (5, L, 0.5, 1.01, "eps from 1.01"),
    ],
)
def test_arguments_out_of_range_are_refused(n: object, log_inverse: object, b: object, eps: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tau(n, log_inverse, b, eps)  # type: ignore[arg-type]
