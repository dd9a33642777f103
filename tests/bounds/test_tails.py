"""Bounds of tail probabilities: never below the truth more often than their level, monotone, and not needlessly loose."""

import numpy as np
from scipy.special import betaincinv, ndtr

from certlut.bounds.tails import tail_bounds

TAU = np.array([0.5, 1.0, 2.0, 3.0])


def test_each_is_clopper_pearson_at_its_share_of_the_level_where_nothing_free_is_less() -> None:
    largest, n = np.array([[400, 100, 30, 20]]), np.array([10_000])
    p = tail_bounds(largest, n, np.array([0.3]), TAU, 0.02)[0]
    expected = betaincinv(largest[0] + 1.0, n[0] - largest[0], 1.0 - 0.02 / 4)
    assert (p[:3] >= expected[:3]).all()
    np.testing.assert_allclose(p[:3], expected[:3], rtol=1e-9)
    # Noise itself allows less than twenty votes do.
    assert p[3] == min(expected[3], ndtr(-3.0) * (1.0 + 1e-14))


def test_they_fall_with_the_threshold_and_stay_below_eps_and_the_noise() -> None:
    rng = np.random.default_rng(1)
    largest = rng.integers(0, 5000, (200, 4))
    eps = rng.uniform(0.0, 0.5, 200)
    p = tail_bounds(largest, np.full(200, 5000), eps, TAU, 1e-3)
    assert (np.diff(p, axis=1) <= 0.0).all()
    assert (p <= eps[:, None]).all()
    assert (p <= ndtr(-TAU) * (1.0 + 1e-13)).all()


def test_the_largest_count_needs_no_union_over_directions() -> None:
    """Twenty directions of equal probability: the bound from the largest count fails no more often than its level."""
    rng = np.random.default_rng(2)
    truth, n, level, runs = np.array([0.1, 0.03, 0.004, 0.0003]), 2000, 0.2, 4000
    counts = rng.binomial(n, truth, (runs, 20, 4)).max(axis=1)
    missed = (tail_bounds(counts, np.full(runs, n), np.full(runs, 0.4), TAU, level) < truth).any(axis=1).mean()
    assert missed <= level
    # Of one direction alone: near its level, so that the bound is not loose.
    counts = rng.binomial(n, truth[0], (runs, 1))
    missed = (tail_bounds(counts, np.full(runs, n), np.full(runs, 0.4), TAU[:1], level) < truth[0]).mean()
    assert 0.8 * level <= missed <= level + 4.0 * np.sqrt(level / runs)
