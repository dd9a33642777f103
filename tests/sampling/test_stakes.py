import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from certlut.sampling.stakes import (
    BETA_MAX,
    MU_MAX,
    REACH,
    RHO_MAX,
    TAIL,
    best_stake,
    centre,
    chosen_b,
    first_constant,
    first_left,
    first_spread,
    likely_along,
    stages,
    thinned,
    vote_square,
)
from reference.naive_bets import tail
from reference.naive_statistics import phi, variance


def test_the_tail_is_that_of_the_reach_rounded_up_and_no_stake_loses_all() -> None:
    assert tail(REACH) <= TAIL <= 1.01 * tail(REACH)
    assert BETA_MAX * (REACH + MU_MAX) < 1.0
    assert 0.0 < RHO_MAX < 1.0


@pytest.mark.parametrize("n", [2, 3, 7, 8, 9, 15, 16, 100, 1001, 10**6 + 7])
def test_stages_are_an_eighth_an_eighth_a_quarter_and_a_half(n: int) -> None:
    sizes = stages(n)
    assert sum(sizes) == n
    assert sum(sizes[:3]) == n // 2
    assert sizes[0] == sizes[1] == n // 8
    assert min(sizes) >= 0


# On floats, NumPy arrays and torch tensors alike (torch divides a float by a tensor less exactly: targets are of one kind with eps)

EPS = np.array([0.5, 0.3, 0.1, 0.01, 1e-4, 1e-7])
FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "square": lambda xp, eps: vote_square(0.75, eps),
    "constant": lambda xp, eps: first_constant(xp, eps)[0],
    "first": lambda xp, eps: first_constant(xp, eps)[1],
    "spread": lambda xp, eps: first_spread(eps, 2.0 - eps, 0.1 + eps, 0.9 - eps),
    "left": lambda xp, eps: first_left(eps),
    "likely": lambda xp, eps: likely_along(0.1 * eps, 500, eps, 2.0 - eps, 0.1 + eps),
    "stake": lambda xp, eps: best_stake(xp, 10.0 + 0.0 * eps, 5000, eps),
    "centre": lambda xp, eps: centre(xp, 3.0 * (eps - 0.2)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_forecast_and_the_sampler_get_the_same_bits(name: str) -> None:
    formula = FORMULAS[name]
    one_by_one = [float(formula(np, float(eps))) for eps in EPS]
    assert formula(np, EPS).tolist() == one_by_one
    assert formula(torch, torch.from_numpy(EPS)).tolist() == one_by_one


def test_the_formulas_by_hand() -> None:
    for eps, constant in ((0.5, 0.5), (0.1, 0.87), (0.01, 0.987)):
        found, spread = first_constant(np, eps)
        assert found == pytest.approx(constant, rel=1e-12)
        # 1.3 eps of votes against.
        assert spread == pytest.approx((1.0 - constant) ** 2 * (1.0 - 1.3 * eps) + constant**2 * 1.3 * eps, rel=1e-12)
    assert vote_square(0.6, 0.1) == pytest.approx(0.9 * 0.4**2 + 0.1 * 0.6**2, rel=1e-12)
    # E t^2 over votes against of a half-space is eps + z phi(z); 0.8 of it, less what the prediction takes out.
    assert first_spread(0.1, 1.2816, phi(1.2816), 0.5) == pytest.approx(0.8 * (0.1 + 1.2816 * phi(1.2816)) * (1 - 0.05), rel=1e-12)
    assert best_stake(np, 10.0, 1000, 0.04) == BETA_MAX
    assert best_stake(np, 10.0, 100_000, 0.04) == pytest.approx(math.sqrt(20.0 / 4000.0), rel=1e-12)
    assert centre(np, np.array([-1.0, 0.1, 1.0])).tolist() == [-MU_MAX, 0.1, MU_MAX]


# The choice of b


def test_b_is_between_a_half_and_one_and_rises_as_votes_against_get_rare() -> None:
    values = [chosen_b(eps) for eps in (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-6)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.5, 1.0)
    assert all((64.0 * b).is_integer() for b in values)
    for eps in (0.3, 0.1, 0.01, 0.001):
        # Near the least worst variance.
        assert variance(eps, chosen_b(eps)) <= 1.2 * min(variance(eps, b) for b in np.linspace(0.5, 1.0, 101))


def test_what_is_seen_along_a_proposal_counts_as_far_as_it_is_no_noise() -> None:
    eps, z, rim = 0.01, 2.326, 0.0267
    assert likely_along(-1.0, 0, eps, z, rim) == pytest.approx(0.9 * rim)
    assert likely_along(0.5 * rim, 10**12, eps, z, rim) == pytest.approx(0.5 * rim)
    # The mean of votes against and the guess, each by the other's variance.
    variance_seen, variance_guessed = (eps + z * rim) / 2000, (0.5 * rim) ** 2
    expected = (-0.2 * rim * variance_guessed + 0.9 * rim * variance_seen) / (variance_guessed + variance_seen)
    assert likely_along(-0.2 * rim, 2000, eps, z, rim) == pytest.approx(expected)


def test_a_thinned_direction_keeps_its_larger_coordinates_and_their_signs() -> None:
    w = np.array([0.8, -0.5, 0.3, -0.1, 0.1])
    w /= np.linalg.norm(w)
    thin = thinned(w)
    # The root mean square is 5^(-1/2).
    expected = np.sign(w) * np.maximum(np.abs(w) - 0.7 / math.sqrt(5.0), 0.0)
    assert thin == pytest.approx(expected / np.linalg.norm(expected), rel=1e-14)
    assert np.count_nonzero(thin) == 2
    for same in (np.eye(5)[1], np.full(5, -(5.0**-0.5)), np.ones(1)):
        assert thinned(same) == pytest.approx(same, rel=1e-14)
    v = np.random.default_rng(0).standard_normal(100_000)
    v /= np.linalg.norm(v)
    thin = thinned(v)
    # Of a normal shape: less than 3/5 of the largest |w|_1 in place of 4/5, at a cosine above 9/10.
    assert abs(float(np.linalg.norm(thin)) - 1.0) < 1e-15
    assert np.abs(thin).sum() < 0.6 * math.sqrt(100_000)
    assert np.abs(v).sum() > 0.79 * math.sqrt(100_000)
    assert thin @ v > 0.9
