"""certlut.tablegen.small: radii next to q = 1/2, against an independent expansion, against the plain dual, in ball arithmetic."""

import math

import numpy as np
import pytest

from certlut.kernels.arrays import Array
from certlut.kernels.normal import density, upper, upper_quantile
from certlut.kernels.slab import slab_edges
from certlut.tablegen import Status, radius, solve
from certlut.tablegen.moments import compute_moments
from certlut.tablegen.node import TOLERANCE, _search, _small
from certlut.tablegen.small import SMALL, outside, remainder, remainder_slope, small_moments
from reference import naive
from reference.proofs import proves


def place(z: float, rho: float, theta: float) -> tuple[float, float, float, float]:
    """(1 - q, m1, m2, z) at a q that is a float, and z its quantile."""
    eps = 1.0 - (1.0 - upper(z))
    z = upper_quantile(eps)
    turn = math.radians(theta)
    m2 = rho * density(z) * math.sin(turn) if theta < 180.0 else 0.0
    return eps, -rho * density(z) * math.cos(turn), m2, z


def scaled(a: tuple[float, float, float], r: float) -> Array:
    return np.array([(a[0] - 1.0) / r**2, (a[1] - r) / r**2, a[2] / r**2])


def test_the_remainder_and_its_slope_have_all_their_digits() -> None:
    rng = np.random.default_rng(91)
    for r in [*10.0 ** rng.uniform(-12.0, -1.0, 200), SMALL, 1e-300]:
        t = rng.uniform(-9.5, 9.5)
        exact = float(naive.remainder(t, r))
        assert abs(remainder(t, r) - exact) <= 1e-14 * (0.5 + t * t)
        slope = float(naive.MP.expm1(naive.MP.mpf(r) * t - naive.MP.mpf(r) ** 2 / 2) / r)
        assert abs(remainder_slope(t, r) - slope) <= 1e-14 * (1.0 + abs(slope))


def test_its_moments_are_the_plain_ones() -> None:
    rng = np.random.default_rng(92)
    for case in range(60):
        z, rho, theta = 10.0 ** rng.uniform(-3.0, -1.5), 1.0 - 10.0 ** rng.uniform(-4.0, 0.0), rng.uniform(1.0, 179.0)
        solution = solve(*naive.point(z, rho, theta))
        r = solution.radius
        if not (0.003 < r < SMALL and solution.status == Status.BOTH_ACTIVE):
            continue
        b = scaled(solution.multipliers, r) * np.exp(0.1 * rng.uniform(-1.0, 1.0, 3))
        a = np.array([1.0, r, 0.0]) + r * r * b
        plain, small = compute_moments(a, r, z), small_moments(b, r)
        # The plain curve carries the rounding of a over a2.
        noise = 1e-12 + 1e-15 / a[2]
        for name in ("h", "h_u1", "h_u2", "hl_shift"):
            assert abs(getattr(plain, name) - getattr(small, name)) <= noise, (case, name)
        assert abs(plain.hl - (small.h + r * small.h_u1 + r * r * small.hl)) <= noise
        for name in ("w", "wt", "wc", "wtt", "wtc", "wcc"):
            assert abs(getattr(plain, name) - getattr(small, name)) <= 100.0 * noise * (1.0 + small.wcc), (case, name)


def test_outside_a_slab_the_moments_are_closed_forms() -> None:
    for w1, w2, r in ((0.3, -1.2, 0.05), (-0.1, -2.0, 1e-9), (1.0, -30.0, 0.1)):
        m = outside(w1, w2, r)
        assert m.h == pytest.approx(upper(w1) + upper(-w2), rel=1e-14)
        assert m.h_u1 == pytest.approx(density(w1) - density(w2), abs=1e-15)
        # (t^2 - 1) / 2 at r = 0.
        assert m.hl == pytest.approx(0.5 * (w1 * density(w1) - w2 * density(w2)), abs=0.5 * r)


def test_both_routes_give_one_radius_where_both_converge() -> None:
    rng = np.random.default_rng(93)
    a = np.empty(3)
    compared = 0
    for _ in range(1500):
        theta = rng.choice([0.0, 180.0, rng.uniform(0.0, 180.0)], p=[0.1, 0.1, 0.8])
        eps, m1, m2, z = place(10.0 ** rng.uniform(-3.0, -1.0), 1.0 - 10.0 ** rng.uniform(-4.0, 0.0), theta)
        edges = slab_edges(eps, m1, z, 0.0)
        plain = _search(eps, m1, m2, z, *edges, a)
        small = _small(eps, m1, m2, z, *edges, a)
        if plain.error <= TOLERANCE and small.error <= TOLERANCE:
            compared += 1
            assert small.r == pytest.approx(plain.r, rel=2.0 * plain.error + 1e-13), (eps, m1, m2)
            # Where a1 is all but 0, rounding decides.
            assert small.status == plain.status or a[1] <= 1e-9
    assert compared > 500


@pytest.mark.parametrize(
    ("z", "rho", "theta"),
    [(2.5e-4, 0.999, 30.0), (2.5e-6, 0.999, 30.0), (2.5e-6, 0.5, 60.0), (1e-9, 0.9, 40.0), (2.5e-6, 0.5, 90.0)],
)
def test_a_radius_next_to_one_half_solves_the_four_equations(z: float, rho: float, theta: float) -> None:
    point = naive.point(z, rho, theta)
    solution = solve(*point)
    # As z goes to 0 the scaled multipliers reach a limit, and they say where to start from.
    far = solve(*naive.point(1e-3, rho, theta))
    exact = naive.small_radius(*point, scaled(far.multipliers, far.radius), solution.radius * (1.0 + 1e-5))
    assert solution.radius == pytest.approx(exact, rel=1e-12)


def test_small_radii_are_proven_in_ball_arithmetic() -> None:
    rng = np.random.default_rng(94)
    for _ in range(40):
        z, rho, theta = 10.0 ** rng.uniform(-4.5, -3.0), 1.0 - 10.0 ** rng.uniform(-4.0, 0.0), rng.uniform(1.0, 80.0)
        eps, m1, m2, z = place(z, rho, theta)
        r = radius(1.0 - eps, m1, m2)
        assert proves(np.array([1.0 - eps, m1, m2, z]), r)
        assert not proves(np.array([1.0 - eps, m1, m2, z]), r * (1.0 + 1e-6))


def test_every_point_next_to_one_half_converges() -> None:
    """Down to the last q above it; the rim and both axes among them."""
    rng = np.random.default_rng(95)
    n = 4000
    z = 10.0 ** rng.uniform(-15.5, -1.5, n)
    rho = 1.0 - 10.0 ** rng.uniform(-5.0, 0.0, n)
    near = np.clip(rng.choice([0.0, 90.0, 180.0], n) + rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-14.0, 0.0, n), 0.0, 180.0)
    theta = np.where(rng.random(n) < 0.5, near, rng.uniform(0.0, 180.0, n))
    for node in zip(z, rho, theta, strict=True):
        eps, m1, m2, _ = place(*node)
        if eps < 0.5:
            solution = solve(1.0 - eps, m1, m2)
            assert solution.converged, node
            assert solution.radius >= upper_quantile(eps) * (1.0 - 1e-13), node
            assert min(solution.multipliers) >= 0.0, node


@pytest.mark.parametrize(("q", "rho", "theta"), [(0.5001, 0.999, 30.0), (0.500001, 0.999, 30.0), (0.500001, 0.5, 90.0)])
def test_radii_that_were_refused_before(q: float, rho: float, theta: float) -> None:
    z = upper_quantile(1.0 - q)
    rim = density(z)
    r = radius(q, -rho * rim * math.cos(math.radians(theta)), rho * rim * math.sin(math.radians(theta)))
    # To first order the vote falls along the gradient: r = z / (rho cos theta), somewhat less than that.
    if theta < 80.0:
        assert r == pytest.approx(z / (rho * math.cos(math.radians(theta))), rel=0.01)
    assert r > z
