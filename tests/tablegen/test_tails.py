"""certlut.tablegen.tails: golden values, a linear program, the primal; rounded up; limits and lemmas; what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from certlut.tablegen.tails import STRAIGHT, Status, solve_tail, tail_bound
from reference import naive_tails as naive

GOLDEN = np.loadtxt(Path(__file__).parent.parent / "data" / "tails_golden.csv", delimiter=",", skiprows=1)
TAU = np.array([1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
SOME = settings(deadline=None, derandomize=True, max_examples=60)


def question(seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    return naive.draw_profile(np.random.default_rng(seed))


# Values


@pytest.mark.parametrize("row", range(len(GOLDEN)))
def test_the_golden_values_are_reproduced(row: int) -> None:
    eps, *p, a, b, value = GOLDEN[row]
    solution = solve_tail(a, b, eps, TAU, p)
    assert solution.status == Status.POOLED
    assert solution.value == pytest.approx(value, abs=1e-7)  # they have seven digits
    assert solution.error <= 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_a_linear_program_on_a_grid_encloses_the_bound(seed: int) -> None:
    rng = np.random.default_rng([31, seed])
    eps, tau, p = naive.draw_profile(rng)
    a, b = rng.uniform(0.05, 4.0), rng.uniform(0.1, 3.0)
    low, high = naive.linear_program(a, b, eps, tau, p)
    value = solve_tail(a, b, eps, tau, p).value
    assert low - 1e-7 <= value <= high + 1e-7
    # The grid loses the cells along the set's edge only.
    assert value - low <= 4e-3


@pytest.mark.parametrize("seed", range(40))
def test_the_worst_set_is_allowed_and_attains_the_bound(seed: int) -> None:
    rng = np.random.default_rng([32, seed])
    eps, tau, p = naive.draw_profile(rng)
    a, b = rng.uniform(0.0, 5.0), 10.0 ** rng.uniform(-2.5, 0.6)
    solution = solve_tail(a, b, eps, tau, p)
    mass, shifted = naive.worst_set(a, b, tau, solution.levels)
    profile = naive.cleaned(eps, tau, p)
    beyond = np.cumsum(mass[::-1])[::-1]
    assert (beyond <= profile[:-1] + 1e-9).all()
    assert shifted.sum() == pytest.approx(solution.value, abs=1e-7)
    # Complementary slackness: a multiplier that is not 0 belongs to a bound that is used up.
    used = np.array(solution.multipliers) * (profile[:-1] - beyond)
    assert used == pytest.approx(np.zeros(used.size), abs=1e-7)


@pytest.mark.parametrize("seed", range(10))
def test_the_value_is_above_the_dual_at_its_own_levels_and_hardly(seed: int) -> None:
    rng = np.random.default_rng([33, seed])
    eps, tau, p = naive.draw_profile(rng, 3)
    a, b = rng.uniform(0.1, 5.0), 0.0 if seed == 0 else 10.0 ** rng.uniform(-3.0, 0.6)
    solution = solve_tail(a, b, eps, tau, p)
    exact = naive.mp_dual(a, b, naive.cleaned(eps, tau, p), tau, solution.levels)
    assert 0.0 <= solution.value - exact <= 3e-12


def test_levels_are_nondecreasing_and_multipliers_their_steps() -> None:
    for seed in range(30):
        eps, tau, p = question(seed)
        solution = solve_tail(1.5, 0.7, eps, tau, p)
        assert (np.diff(np.minimum(solution.levels, 1e300)) >= 0.0).all()
        assert solution.levels[0] >= 0.0
        finite = [x for x in solution.levels if x < math.inf]
        assert np.cumsum(solution.multipliers)[: len(finite)] == pytest.approx(finite, rel=1e-12)


# Closed cases


def test_eps_alone_is_the_half_space() -> None:
    for eps, a, b in ((0.3, 1.0, 0.5), (1e-3, 2.0, 2.0), (1e-12, 5.0, 3.0), (0.499999, 0.1, 0.2)):
        exact = ndtr(math.hypot(a, b) + ndtri(eps))
        assert solve_tail(a, b, eps, [3.0], [1.0]).value == pytest.approx(exact, abs=3e-12 if eps < 0.4 else 1e-7)


def test_saturated_thresholds_say_nothing() -> None:
    eps = 0.2
    alone = solve_tail(1.0, 0.8, eps, [2.0], [0.01]).value
    assert solve_tail(1.0, 0.8, eps, [2.0, 2.5, 3.0], [0.01, *ndtr([-2.5, -3.0])]).value == pytest.approx(alone, abs=1e-11)
    assert solve_tail(1.0, 0.8, eps, [0.5, 2.0], [eps, 0.01]).value == pytest.approx(alone, abs=1e-11)


def test_nothing_beyond_a_threshold_is_a_bound_of_one_stretch() -> None:
    # h lives on t < 1: at most all of it moves.
    eps, tau, p = 0.2, [1.0, 2.0], [0.0, 0.0]
    for a in (0.5, 2.0, 5.0):
        greedy = ndtr(1.0 - a) - ndtr(ndtri(ndtr(1.0) - eps) - a)
        assert solve_tail(a, 0.0, eps, tau, p).value == pytest.approx(greedy, abs=1e-12)
        solution = solve_tail(a, 1e-3, eps, tau, p)
        assert solution.levels[1:] == (math.inf, math.inf)
        assert greedy - 1e-12 <= solution.value <= greedy + 0.4e-3
    assert solve_tail(1.0, 1.0, eps, [-9.0], [0.0]).value == pytest.approx(0.0, abs=1e-11)


def test_no_votes_against_weigh_nothing() -> None:
    assert solve_tail(2.0, 1.0, 0.0, [1.0], [0.5]).value <= 1e-11


@pytest.mark.parametrize("seed", range(20))
def test_small_b_goes_over_into_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng([34, seed])
    eps, tau, p = naive.draw_profile(rng)
    a = rng.uniform(0.1, 5.0)
    straight = solve_tail(a, 0.0, eps, tau, p)
    assert straight.status == Status.CLOSED_FORM
    for b in (STRAIGHT / 2.0, 1e-9, 1e-6, 1e-4):
        value = solve_tail(a, b, eps, tau, p).value
        assert straight.value - 2e-12 <= value <= straight.value + 0.4 * b + 2e-12


def test_a_thin_band_passes_far_out_and_fails_nearer() -> None:
    # h = 1{.3 < u < 1.75}.
    eps, tau, p = float(ndtr(-0.3) - ndtr(-1.75)), [0.3, 1.75], [float(ndtr(-0.3) - ndtr(-1.75)), 0.0]
    assert solve_tail(1.0, 0.0, eps, tau, p).value == pytest.approx(ndtr(0.7) - ndtr(-0.75), abs=1e-12)
    assert solve_tail(1.0, 0.0, eps, tau, p).value > 0.5 > solve_tail(2.0, 0.0, eps, tau, p).value


@pytest.mark.parametrize(("eps", "p"), [(1e-12, 1e-13), (0.4999999, 0.3), (1e-4, 0.0), (0.3, 1e-15), (1.0, 1.0), (0.7, 0.05)])
def test_extremes_converge(eps: float, p: float) -> None:
    tau = [0.5, 1.0, 2.0, 4.0]
    bounds = [min(eps, p), p / 2.0, p / 4.0, p / 8.0]
    for a in (0.0, 1e-9, 1e-3, 0.1, 1.0, 5.0, 25.0):
        for b in (1e-10, 1e-6, 1e-3, 0.1, 1.0, 5.0, 25.0):
            solution = solve_tail(a, b, eps, tau, bounds)
            assert solution.converged, (a, b)
            assert 0.0 <= solution.value <= min(1.0, 1e-9 + ndtr(math.hypot(a, b) + ndtri(eps)))


# Lemmas


@SOME
@given(st.integers(0, 10**6), st.floats(0.01, 6.0), st.floats(0.0, 1.5707), st.floats(0.0, 1.5707))
def test_turning_away_from_e_only_hurts(seed: int, r: float, one: float, other: float) -> None:
    eps, tau, p = question(seed)
    low, high = sorted((one, other))
    votes = [tail_bound(r * math.cos(angle), r * math.sin(angle), eps, tau, p) for angle in (low, high)]
    assert votes[0] <= votes[1] + 1e-9


@SOME
@given(st.integers(0, 10**6), st.floats(0.0, 5.0), st.floats(0.0, 4.0), st.floats(0.0, 1.0))
def test_more_room_never_lowers_the_bound(seed: int, a: float, b: float, more: float) -> None:
    eps, tau, p = question(seed)
    value = tail_bound(a, b, eps, tau, p)
    assert tail_bound(a, b + more, eps, tau, p) >= value - 1e-9
    assert tail_bound(a, b, eps + (0.999 - eps) * more, tau, p) >= value - 1e-9
    k = seed % p.size
    assert tail_bound(a, b, eps, tau, np.where(np.arange(p.size) == k, p + (1.0 - p) * more, p)) >= value - 1e-9


@SOME
@given(st.integers(0, 10**6), st.tuples(*[st.floats(0.0, 4.0)] * 4), st.floats(0.0, 1.0))
def test_two_points_certify_what_lies_between_them(seed: int, ends: tuple[float, ...], t: float) -> None:
    eps, tau, p = question(seed)
    one, other = np.array(ends[:2]), np.array(ends[2:])
    values = [tail_bound(*point, eps, tau, p) for point in (one, other, (1.0 - t) * one + t * other)]
    gap = float(np.linalg.norm(one - other))
    bend = math.exp(-0.5) / math.sqrt(2.0 * math.pi) * t * (1.0 - t) * gap * gap
    assert values[2] <= (1.0 - t) * values[0] + t * values[1] + bend + 1e-9
    # Lipschitz, in the plane.
    assert values[1] <= ndtr(ndtri(min(values[0], 1.0)) + gap) + 1e-9


# Domain


@pytest.mark.parametrize(
    ("a", "b", "eps", "tau", "p", "message"),
    [
        (math.nan, 1.0, 0.1, [1.0], [0.1], "a = nan"),
        (-1.0, 1.0, 0.1, [1.0], [0.1], "a = -1.0"),
        (1.0, -1e-9, 0.1, [1.0], [0.1], "b = -1e-09"),
        (1.0, math.inf, 0.1, [1.0], [0.1], "b = inf"),
        (1.0, 1.0, math.nan, [1.0], [0.1], "eps = nan"),
        (1.0, 1.0, -0.1, [1.0], [0.1], "eps = -0.1"),
        (1.0, 1.0, 1.1, [1.0], [0.1], "eps = 1.1"),
        (1.0, 1.0, 0.1, [1.0], [math.nan], r"p = \[nan\]"),
        (1.0, 1.0, 0.1, [1.0], [-0.1], "p = "),
        (1.0, 1.0, 0.1, [2.0, 1.0], [0.1, 0.1], "increasing"),
        (1.0, 1.0, 0.1, [1.0, 1.0], [0.1, 0.1], "increasing"),
        (1.0, 1.0, 0.1, [1.0, math.inf], [0.1, 0.1], "finite"),
        (1.0, 1.0, 0.1, [1.0, 2.0], [0.1], "shapes"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    a: float, b: float, eps: float, tau: list[float], p: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        solve_tail(a, b, eps, tau, p)
    assert "\n" not in str(error.value)


def test_arrays_broadcast_and_scalars_give_a_float() -> None:
    eps, tau, p = question(1)
    grid = tail_bound(np.array([[0.5], [1.0]]), np.array([0.2, 0.4, 0.8]), eps, tau, p)
    assert isinstance(grid, np.ndarray)
    assert grid.shape == (2, 3)
    one = tail_bound(1.0, 0.4, eps, tau, p)
    assert isinstance(one, float)
    assert grid[1, 1] == one
