"""certlut.tablegen.solve: golden values, a linear program, closed forms, a sweep of the domain, and what is refused."""

import csv
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from certlut.tablegen import Solution, Status, radius, solve
from reference import naive

solver = importlib.import_module("certlut.tablegen.solve")  # `certlut.tablegen.solve` is the function

with (Path(__file__).resolve().parents[1] / "data" / "radius_golden.csv").open(encoding="utf-8") as _file:
    GOLDEN = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(_file)]

FRESH = settings(deadline=None, derandomize=True, max_examples=150)
Z, RHO, THETA = st.floats(0.02, 6.0), st.floats(0.0, 1.0 - 1e-5), st.floats(0.0, 180.0)


def cohen(q: float) -> float:
    return float(-ndtri(1.0 - q))


# Against independent values


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"z{row['z']}-rho{row['rho']}-theta{row['theta_deg']:.0f}")
def test_golden_node(row: dict[str, float]) -> None:
    solution = solve(row["q"], row["m1"], row["m2"])
    assert solution.converged
    assert solution.radius == pytest.approx(row["r"], rel=1e-9)
    assert radius(row["q"], row["m1"], row["m2"]) == solution.radius
    assert (solution.multipliers[1] == 0.0) == (row["m1_constraint_active"] == 0.0)
    assert solution.status == (Status.BOTH_ACTIVE if row["m1_constraint_active"] else Status.M1_SLACK)
    assert solution.error <= 1e-9


def test_golden_multipliers_to_the_root_of_the_gap() -> None:
    # The dual is stationary there: a gap of 1e-13 leaves them free by some 1e-6, more along a flat direction.
    worst = 0.0
    for row in GOLDEN:
        found = solve(row["q"], row["m1"], row["m2"]).multipliers
        for a, exact in zip(found, (row["a0"], row["a1"], row["a2"]), strict=True):
            worst = max(worst, abs(a / exact - 1.0) if exact > 0.0 else a)
    assert worst <= 5e-5


def test_random_radii_agree_with_a_linear_program_to_1e_3() -> None:
    # Two proofs for each: a classifier that has lost its majority just beyond the radius, a cut that holds just below it.
    rng = np.random.default_rng(2024)
    for _ in range(200):
        q, m1, m2 = naive.point(rng.uniform(0.05, 5.0), rng.uniform(0.0, 0.99), rng.uniform(0.0, 180.0))
        r = solve(q, m1, m2).radius
        assert naive.brackets_radius(q, m1, m2, r * 0.999, r * 1.001) == (True, True), (q, m1, m2)


def test_the_linear_program_refutes_a_radius_that_is_off() -> None:
    rng = np.random.default_rng(2029)
    for factor in (0.99, 1.01):
        q, m1, m2 = naive.point(rng.uniform(0.5, 4.0), rng.uniform(0.2, 0.9), rng.uniform(20.0, 160.0))
        r = factor * solve(q, m1, m2).radius
        assert naive.brackets_radius(q, m1, m2, r * 0.999, r * 1.001) == (factor < 1.0, factor > 1.0)


def test_the_optimum_is_attained_by_the_region_of_its_multipliers() -> None:
    rng = np.random.default_rng(2025)
    for case in range(40):
        z = rng.uniform(0.05, 6.0)
        rho = 1.0 - 10.0 ** rng.uniform(-5.0, 0.0)
        q, m1, m2 = naive.point(z, rho, rng.uniform(0.5, 179.5))
        solution = solve(q, m1, m2)
        (outside, first, second, shifted, *_), _ = naive.cut_moments(solution.multipliers, solution.radius, z)
        rim = float(naive.density(z))
        # The radius is quadratic in how far the constraints are missed.
        assert abs(outside - (1.0 - q)) <= 1e-6 * rim, case
        assert abs(second + m2) <= 1e-6 * rim, case
        if solution.status == Status.BOTH_ACTIVE:
            assert abs(first + m1) <= 1e-6 * rim, case
        else:
            assert solution.multipliers[1] == 0.0
            assert -first >= m1 - 1e-6 * rim, case
        assert abs(shifted - 0.5) <= 1e-6, case


@pytest.mark.parametrize("theta", [0.0, 180.0])
def test_without_m2_the_radius_is_the_slabs_closed_form(theta: float) -> None:
    rng = np.random.default_rng([2026, int(theta)])
    for _ in range(40):
        q, m1, _ = naive.point(0.02 * 300.0 ** rng.random(), 1.0 - 10.0 ** rng.uniform(-5.0, 0.0), theta)
        solution = solve(q, m1, 0.0)
        assert solution.status == Status.SLAB
        assert abs(solution.radius / naive.mp_slab_radius(q, m1) - 1) <= 1e-9


def test_next_to_the_rim_the_slab_is_right_or_refused() -> None:
    rng = np.random.default_rng(2027)
    for _ in range(60):
        q, m1, _ = naive.point(rng.uniform(0.1, 6.0), 1.0 - 10.0 ** rng.uniform(-12.0, -5.0), rng.choice([0.0, 180.0]))
        solution = solve(q, m1, 0.0)
        if solution.converged:
            assert abs(solution.radius / naive.mp_slab_radius(q, m1) - 1) <= 1e-9, (q, m1)


def test_the_slabs_multipliers_are_a_certificate() -> None:
    rng = np.random.default_rng(2028)
    for _ in range(10):
        q, m1, _ = naive.point(rng.uniform(0.1, 5.0), rng.uniform(0.0, 0.999), rng.choice([0.0, 180.0]))
        solution = solve(q, m1, 0.0)
        a0, a1, a2 = solution.multipliers
        assert a2 == 0.0
        value = 1 - a0 * (1 - naive.MP.mpf(q)) + a1 * naive.MP.mpf(m1) - naive.mp_hinge(solution.multipliers, solution.radius)
        assert abs(value - 0.5) <= 1e-11


def test_on_the_rim_against_the_gradient_the_radius_is_cohens() -> None:
    for z in (0.05, 0.5, 1.0, 3.0, 6.0):
        q = float(ndtr(z))
        rim = float(naive.density(cohen(q)))
        solution = solve(q, -rim, 0.0)
        assert solution.radius == pytest.approx(float(naive.mp_upper_quantile(1 - naive.MP.mpf(q))), rel=1e-9)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12, 3e-16])
def test_next_to_one_half_the_radius_is_still_relatively_exact(gap: float) -> None:
    q = 0.5 + gap
    exact = float(naive.mp_upper_quantile(1 - naive.MP.mpf(q)))
    assert radius(q, -float(naive.density(exact)), 0.0) == pytest.approx(exact, rel=1e-9)


def test_sign_of_the_gradient_condition() -> None:
    # With the sign of (7b) as printed this point would be given 2.64.
    q, m1, m2 = naive.point(cohen(0.9), 0.9, 0.0)
    assert m2 == 0.0
    assert radius(q, m1, 0.0) == pytest.approx(1.305, abs=5e-4)
    assert radius(q, -m1, 0.0) == pytest.approx(2.64, abs=5e-3)


# Over the whole domain


def sweep(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z = np.where(rng.random(count) < 0.5, rng.uniform(0.02, 6.0, count), 0.02 * 300.0 ** rng.random(count))
    rho = np.where(rng.random(count) < 0.5, rng.uniform(0.0, 1.0 - 1e-5, count), 1.0 - 10.0 ** rng.uniform(-5.0, 0.0, count))
    rho[::40], rho[1::40], rho[2::40] = 0.0, 1.0 - 1e-5, 1e-8
    axis = rng.choice([0.0, 90.0, 180.0], count)
    near = axis + 10.0 ** rng.uniform(-13.0, -6.0, count) * rng.choice([-1.0, 1.0], count)
    kind = rng.random(count)
    theta = np.where(kind < 0.2, axis, np.where(kind < 0.5, np.clip(near, 0.0, 180.0), rng.uniform(0.0, 180.0, count)))
    return z, rho, theta


def test_every_node_of_the_domain_converges_and_none_is_below_cohen() -> None:
    z, rho, theta = sweep(np.random.default_rng(31), 6000)
    for q, m1, m2 in zip(*naive.points(z, rho, theta), strict=True):
        solution = solve(q, m1, m2)
        assert solution.converged, (q, m1, m2)
        assert solution.error <= 1e-9
        assert solution.radius >= cohen(q) * (1.0 - 1e-13), (q, m1, m2)
        assert min(solution.multipliers) >= 0.0


def test_nodes_converge_up_to_q_of_one_less_1e_12() -> None:
    rng = np.random.default_rng(32)
    for log10_eps, rho, theta in zip(
        rng.uniform(-12, -1, 1000), rng.uniform(0, 0.9999, 1000), rng.uniform(0, 180, 1000), strict=True
    ):
        q = 1.0 - 10.0**log10_eps
        z = cohen(q)
        rim = float(naive.density(z))
        solution = solve(q, -rho * rim * math.cos(math.radians(theta)), rho * rim * math.sin(math.radians(theta)))
        assert solution.converged, (q, rho, theta)
        assert z * (1.0 - 1e-13) <= solution.radius


@FRESH
@given(Z, RHO, THETA, st.floats(1e-9, 0.5), st.sampled_from(["q", "m1", "m2"]))
def test_the_radius_is_monotone(z: float, rho: float, theta: float, step: float, which: str) -> None:
    q, m1, m2 = naive.point(z, rho, theta)
    more_q, more_m1, more_m2 = q, m1, m2
    if which == "q":
        # Of all larger q, one whose rim still holds (m1, m2).
        more_q = float(ndtr(z * (1.0 + step * (1.0 - rho) / (1.0 + z * z))))
    elif which == "m1":
        more_m1 = m1 + step * (1.0 - rho) * float(naive.density(z))
    else:
        more_m2 = m2 + step * (1.0 - rho) * float(naive.density(z))
    if math.hypot(more_m1, more_m2) < float(naive.density(cohen(more_q))) * (1.0 - 1e-5):
        assert radius(more_q, more_m1, more_m2) >= radius(q, m1, m2) * (1.0 - 2e-9)


@FRESH
@given(st.tuples(Z, RHO, THETA), st.tuples(Z, RHO, THETA), st.floats(0.0, 1.0))
def test_the_radius_is_quasi_convex(first: tuple[float, float, float], second: tuple[float, float, float], weight: float) -> None:
    start, end = naive.point(*first), naive.point(*second)
    between = [float((1.0 - weight) * x + weight * y) for x, y in zip(start, end, strict=True)]
    assert radius(*between) <= max(radius(*start), radius(*end)) * (1.0 + 2e-9)


# What is refused


@pytest.mark.parametrize(
    ("q", "m1", "m2", "name"),
    [
        (math.nan, 0.0, 0.0, "q"),
        (0.9, math.nan, 0.0, "m1"),
        (0.9, 0.0, math.nan, "m2"),
        (math.inf, 0.0, 0.0, "q"),
        (0.9, -math.inf, 0.0, "m1"),
        (0.9, 0.0, math.inf, "m2"),
        (0.5, 0.0, 0.0, "q"),
        (0.2, 0.0, 0.0, "q"),
        (-1.0, 0.0, 0.0, "q"),
        (1.0, 0.0, 0.0, "q"),
        (1.5, 0.0, 0.0, "q"),
        (0.9, 0.0, -1e-3, "m2"),
    ],
)
def test_a_bad_input_is_a_value_error_that_names_it(q: float, m1: float, m2: float, name: str) -> None:
    for function in (solve, radius):
        with pytest.raises(ValueError, match=rf"^{name} = "):
            function(q, m1, m2)


@pytest.mark.parametrize("theta", [0.0, 30.0, 90.0, 180.0])
def test_a_gradient_beyond_the_rim_is_a_value_error_that_names_it(theta: float) -> None:
    q, m1, m2 = naive.point(1.0, 1.0001, theta)
    for function in (solve, radius):
        with pytest.raises(ValueError, match=r"^\(m1, m2\) = .*phi\(Phi\^-1\(q\)\)"):
            function(q, m1, m2)


def test_one_bad_input_in_an_array_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^q = 0\.4"):
        radius([0.9, 0.4], 0.0, 0.0)


# Shapes and failures


def test_arguments_broadcast_and_scalars_give_a_float() -> None:
    q, m1, m2 = np.array([0.7, 0.9, 0.99]), np.array([[-0.02], [0.01]]), 0.005
    out = radius(q, m1, m2)
    assert isinstance(out, np.ndarray)
    assert out.shape == (2, 3)
    assert out.dtype == np.float64
    assert all(out[i, j] == radius(q[j], m1[i, 0], m2) for i in range(2) for j in range(3))
    assert type(radius(0.9, -0.1, 0.05)) is float
    assert type(radius(np.float64(0.9), np.float64(-0.1), np.array(0.05))) is float
    empty = radius(np.empty((0, 2)), 0.0, 0.0)
    assert isinstance(empty, np.ndarray)
    assert empty.shape == (0, 2)


def test_lists_and_integers_are_numbers_too() -> None:
    assert radius([0.9], [0], 0)[0] == radius(0.9, 0.0, 0.0)


def test_a_node_without_convergence_is_never_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Solution(math.nan, (math.nan,) * 3, Status.FAILED, math.inf, 80)
    assert not failed.converged
    monkeypatch.setattr(solver, "solve", lambda q, m1, m2: failed)
    with pytest.raises(ArithmeticError, match=r"q = 0\.9, m1 = -0\.1, m2 = 0\.05"):
        solver.radius([0.9, 0.8], -0.1, 0.05)


def test_an_error_estimate_above_the_tolerance_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "TOLERANCE", 1e-30)
    solution = solver.solve(0.9, -0.1, 0.05)
    assert solution.status == Status.FAILED
    assert not solution.converged
    assert math.isnan(solution.radius)
    with pytest.raises(ArithmeticError, match="no convergence"):
        solver.radius(0.9, -0.1, 0.05)
