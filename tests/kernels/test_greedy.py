"""certlut.kernels.greedy: the worst votes along a ray against 30-digit sums and a linear program; the march stops at a failure."""

import math

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, linprog
from scipy.special import ndtr, ndtri

from certlut.kernels.greedy import BEND, FAR, MARGIN, ROOT_BEND, fill_profile, greedy_edges, quantile, ray_radii, votes_along
from reference import naive_tails as naive

INF = math.inf


def profile_of(eps: float, tau: np.ndarray, p: np.ndarray) -> np.ndarray:
    profile = np.empty(tau.size + 2)
    fill_profile(eps, tau, p, profile)
    return profile


def edges_of(eps: float, tau: np.ndarray, p: np.ndarray) -> np.ndarray:
    edges = np.empty(tau.size + 1)
    greedy_edges(profile_of(eps, tau, p), tau, edges)
    return edges


def votes(a: float, eps: float, tau: np.ndarray, p: np.ndarray) -> float:
    return votes_along(a, edges_of(eps, tau, p), tau)[0]


def line_program(a: float, eps: float, tau: np.ndarray, p: np.ndarray, cells: int = 4000) -> float:
    """B(a, 0) for h constant on the cells of a line: at most the exact value, and nearly it."""
    knots = np.unique(np.concatenate([[-INF, INF], np.linspace(-7.0, a + 7.0, cells), tau]))
    before, after = np.diff(ndtr(knots)), np.diff(ndtr(knots - a))
    limits = np.concatenate([[eps], p])
    rows = np.array([before] + [np.where(knots[:-1] >= threshold, before, 0.0) for threshold in tau])
    keep = limits > 0.0
    result = linprog(-after, A_ub=rows[keep] / limits[keep, None], b_ub=np.ones(keep.sum()), bounds=(0.0, 1.0), method="highs")
    return -float(result.fun)


def test_the_constants_are_rounded_up() -> None:
    mp = mpmath.mp.clone()
    mp.dps = 30
    for value, exact in ((BEND, mp.npdf(1)), (ROOT_BEND, mp.sqrt(mp.npdf(1)))):
        assert 0.0 <= value / exact - 1 <= 1e-14


@pytest.mark.parametrize("seed", range(30))
def test_the_profile_is_a_running_minimum_and_at_most_the_normal_tail(seed: int) -> None:
    eps, tau, p = naive.draw_profile(np.random.default_rng([41, seed]))
    assert profile_of(eps, tau, p) == pytest.approx(naive.cleaned(eps, tau, p), rel=3e-13, abs=0.0)
    assert (profile_of(eps, tau, p)[:-1] >= naive.cleaned(eps, tau, p)[:-1] * (1.0 - 1e-15)).all()


@pytest.mark.parametrize("mass", [1e-300, 1e-12, 0.3, 0.5, 0.7, 1.0 - 1e-9])
def test_quantile_inverts_the_tail_on_both_sides(mass: float) -> None:
    assert quantile(mass) == pytest.approx(-ndtri(mass), rel=1e-7 if mass > 0.99 else 1e-13)


def test_quantile_at_the_ends() -> None:
    assert (quantile(0.0), quantile(1.0)) == (INF, -INF)


@pytest.mark.parametrize("seed", range(15))
def test_a_linear_program_on_a_line_agrees(seed: int) -> None:
    rng = np.random.default_rng([42, seed])
    eps, tau, p = naive.draw_profile(rng)
    a = rng.uniform(0.1, 5.0)
    # The grid loses half a cell of L's slope at each edge.
    assert -1e-7 <= votes(a, eps, tau, p) - line_program(a, eps, tau, p) <= 2e-3


@pytest.mark.parametrize("seed", range(30))
def test_the_worst_set_is_allowed_and_does_not_depend_on_a(seed: int) -> None:
    eps, tau, p = naive.draw_profile(np.random.default_rng([43, seed]))
    edges, right = edges_of(eps, tau, p), np.append(tau, INF)
    assert (edges <= right).all()
    assert (edges[1:] >= tau).all()
    beyond = np.cumsum((ndtr(-edges) - ndtr(-right))[::-1])[::-1]
    assert (beyond <= naive.cleaned(eps, tau, p)[:-1] * (1.0 + 1e-12) + 1e-16).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_is_rounded_up_and_its_slope_right(seed: int) -> None:
    rng = np.random.default_rng([44, seed])
    eps, tau, p = naive.draw_profile(rng)
    edges, a = edges_of(eps, tau, p), rng.uniform(0.0, 6.0)
    value, slope = votes_along(a, edges, tau)
    assert 0.0 <= value - exact_votes(a, edges, tau) <= 2.0 * MARGIN
    assert slope == pytest.approx((votes_along(a + 1e-5, edges, tau)[0] - votes_along(a - 1e-5, edges, tau)[0]) / 2e-5, abs=1e-7)


def exact_votes(a: float, edges: np.ndarray, tau: np.ndarray) -> mpmath.mpf:
    mp = naive.MP
    return sum(mp.ncdf(a - mp.mpf(x)) - mp.ncdf(a - mp.mpf(y)) for x, y in zip(edges, np.append(tau, INF), strict=True))


# The march


def first_failure(eps: float, tau: np.ndarray, p: np.ndarray, start: float) -> float:
    """The first a >= start with B(a, 0) >= 1/2, by a fine scan and a root search; inf for none before FAR."""
    edges = edges_of(eps, tau, p)
    scan = np.arange(start, FAR, 2e-3)
    values = np.array([votes_along(a, edges, tau)[0] for a in scan.tolist()])
    bad = np.flatnonzero(values >= 0.5)
    if not bad.size:
        return INF
    if bad[0] == 0:
        return start
    return float(brentq(lambda a: votes_along(a, edges, tau)[0] - 0.5, scan[bad[0] - 1], scan[bad[0]], xtol=1e-13))


@pytest.mark.parametrize("seed", range(40))
def test_the_radius_of_a_ray_is_the_first_failure_and_not_more(seed: int) -> None:
    rng = np.random.default_rng([45, seed])
    eps, tau, p = naive.draw_profile(rng)
    zeroth = -float(ndtri(eps))
    for start in (0.0, zeroth + rng.uniform(0.0, 1.0)):
        radius = float(ray_radii(eps, tau, p, start))
        exact = first_failure(eps, tau, p, max(start, zeroth * (1.0 - 1e-9)))
        assert radius >= max(start, zeroth * (1.0 - 1e-11))
        if start < exact < FAR:
            assert radius <= exact + 2e-13  # brentq's own accuracy; the votes at the radius itself:
            assert exact_votes(radius, edges_of(eps, tau, p), tau) < 0.5
            assert radius >= exact - 1e-8
        elif exact == INF:
            assert radius == FAR


def test_a_half_space_has_its_own_radius() -> None:
    tau = np.array([0.5, 1.0, 2.0, 3.0])
    for eps in (1e-9, 1e-3, 0.1, 0.4, 0.4999):
        z = -float(ndtri(eps))
        radius = float(ray_radii(eps, tau, np.minimum(eps, ndtr(-tau))))
        assert z * (1.0 - 1e-11) <= radius <= z + 1e-9


def test_a_band_that_fails_half_way_is_not_certified_beyond() -> None:
    # h = 1{.3 < u < 1.75}: B(1) > 1/2 > B(2).
    eps = float(ndtr(-0.3) - ndtr(-1.75))
    tau, p = np.array([0.3, 1.75]), np.array([eps, 0.0])
    radius = float(ray_radii(eps, tau, p))
    assert 0.3 < radius < 1.0
    assert votes(radius, eps, tau, p) == pytest.approx(0.5, abs=1e-8)
    # Where another certificate carries across the gap, tails go on behind it.
    assert float(ray_radii(eps, tau, p, 2.0)) == FAR


def test_independent_votes_gain_most() -> None:
    tau = np.arange(0.5, 4.1, 0.25)
    eps = 0.05
    z, radius = -float(ndtri(eps)), float(ray_radii(eps, tau, eps * ndtr(-tau)))
    assert radius > 2.5 * z


def test_shapes_broadcast_and_no_majority_gives_nothing() -> None:
    tau = np.array([1.0, 2.0])
    radii = ray_radii(np.array([0.1, 0.5, 0.7]), tau, np.array([0.02, 0.001]))
    assert radii.shape == (3,)
    assert radii[0] > 0.0
    assert radii[1:].tolist() == [0.0, 0.0]
    assert ray_radii(0.1, tau, np.array([0.02, 0.001]), np.zeros((4, 2))).shape == (4, 2)
