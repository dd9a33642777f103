"""certlut.tablegen.dual: moments against golden values and adaptive quadrature, derivatives against differences, weak duality."""

import csv
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtri

from certlut.kernels.arrays import Array
from certlut.tablegen.dual import maximise, newton_step, surplus
from certlut.tablegen.moments import NO_MOMENTS, Moments, compute_moments
from reference import naive

with (Path(__file__).resolve().parents[1] / "data" / "radius_golden.csv").open(encoding="utf-8") as _file:
    GOLDEN = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(_file)]


def moments_at(a: npt.ArrayLike, r: float, z: float) -> Moments:
    moments: Moments = compute_moments(np.asarray(a, dtype=np.float64), r, z)
    return moments


def value_at(point: tuple[float, float, float], a: npt.ArrayLike, r: float, z: float) -> float:
    a = np.asarray(a, dtype=np.float64)
    return float(surplus(*point, a, moments_at(a, r, z)))


def golden_point(row: dict[str, float]) -> tuple[float, float, float]:
    return row["one_minus_q"], row["m1"], row["m2"]


def golden_multipliers(row: dict[str, float]) -> Array:
    return np.array([row["a0"], row["a1"], row["a2"]])


def near_optimal(rng: np.random.Generator) -> tuple[dict[str, float], Array, float]:
    """A golden row, multipliers and radius some way off its optimum, but not so far that the cut misses the bulk."""
    row = GOLDEN[rng.integers(len(GOLDEN))]
    return row, shaken(rng, row), row["r"] * math.exp(0.2 * rng.uniform(-1.0, 1.0) * min(1.0, row["r"]))


def shaken(rng: np.random.Generator, row: dict[str, float]) -> Array:
    return golden_multipliers(row) * np.exp(min(0.3, 0.1 * row["r"] ** 2) * rng.uniform(-1.0, 1.0, 3))


def test_the_golden_file_has_both_kinds_of_node() -> None:
    assert len(GOLDEN) == 107
    assert sum(row["m1_constraint_active"] == 0.0 for row in GOLDEN) == 12


def test_golden_multipliers_reproduce_the_constraints_and_one_half() -> None:
    for row in GOLDEN:
        rim = float(naive.density(row["z"]))
        moments = moments_at(golden_multipliers(row), row["r"], row["z"])
        assert abs(moments.h - row["one_minus_q"]) <= 1e-12 * rim
        assert abs(moments.h_u2 + row["m2"]) <= 1e-12 * rim
        if row["m1_constraint_active"]:
            assert abs(moments.h_u1 + row["m1"]) <= 1e-12 * rim
        else:
            assert -moments.h_u1 > row["m1"]  # E u1 f exceeds what is asked for
        assert abs(moments.hl - 0.5) <= 1e-12


def random_cut(rng: np.random.Generator, kind: str) -> tuple[Array, float, float]:
    """Multipliers that are not optimal for anything, a radius and the z at whose scale to look."""
    z = rng.uniform(0.05, 5.0)
    r = z * math.exp(rng.uniform(0.0, 0.7))
    # The cut passes u1 = t at u2 = 0, on the right.
    t = rng.uniform(0.3, 1.2) * (z + 0.5)
    a1 = 0.0 if kind == "a1 = 0" else math.exp(r * t - 0.5 * r * r) * math.exp(rng.uniform(-3.0, 0.5))
    a0 = max(math.exp(r * t - 0.5 * r * r) - a1 * t, math.exp(-0.5 * r * r)) * math.exp(rng.uniform(0.0, 0.5))
    a2 = (a0 + a1) * 10.0 ** (rng.uniform(-9.0, -4.0) if kind == "steep" else rng.uniform(-2.0, 0.7))
    return np.array([a0, a1, a2]), r, z


@pytest.mark.parametrize("kind", ["ordinary", "steep", "a1 = 0"])
def test_moments_equal_adaptive_quadrature_at_random_cuts(kind: str) -> None:
    rng = np.random.default_rng([11, len(kind)])
    for _ in range(20):
        a, r, z = random_cut(rng, kind)
        moments = moments_at(a, r, z)
        expected, size = naive.cut_moments(a, r, z)
        rim = float(naive.density(z))
        error = np.abs(moments - expected)
        # Along the boundary c carries the rounding of (a0 + a1 t - L) / a2.
        rounding = 1e-15 * (a[0] + a[1] * 10.0) / a[2]
        # The masses: relative to phi(z), or to themselves where they are larger. The shifted ones are of order one.
        assert (error[:2] <= 1e-12 * (rim + size[:2])).all(), (a, r, z)
        assert error[2] <= 1e-12 * (rim + size[2]) + rounding * size[2], (a, r, z)
        assert (error[3:5] <= 1e-12 * (1.0 + size[3:5])).all(), (a, r, z)
        # The boundary integrals only steer Newton.
        assert (error[5:] <= (1e-11 + rounding) * (size[5:] + rim * size[5])).all(), (a, r, z)


def test_the_surplus_is_the_dual_value_less_one_half() -> None:
    rng = np.random.default_rng(12)
    for _ in range(40):
        row, a, r = near_optimal(rng)
        eps, m1, m2 = golden_point(row)
        expected = 0.5 - a[0] * eps + a[1] * m1 + a[2] * m2 - naive.hinge(a, r, panels=20_000)
        assert abs(value_at((eps, m1, m2), a, r, row["z"]) - expected) <= 1e-11 * (1.0 + a[0] * eps)


def test_the_gradient_is_that_of_the_surplus() -> None:
    rng = np.random.default_rng(13)
    for _ in range(40):
        row, a, r = near_optimal(rng)
        point, z = golden_point(row), row["z"]
        moments = moments_at(a, r, z)
        gradient = np.array([moments.h - point[0], moments.h_u1 + point[1], moments.h_u2 + point[2]])
        rim = float(naive.density(z))
        for i in range(3):
            if a[i] > 0.0:
                h = 1e-5 * a[i] * np.eye(3)[i]
                slope = (value_at(point, a + h, r, z) - value_at(point, a - h, r, z)) / (2.0 * h[i])
                assert abs(slope - gradient[i]) <= 1e-5 * rim + 1e-9 / a[i]
        h_r = 1e-5 * r
        slope = (value_at(point, a, r + h_r, z) - value_at(point, a, r - h_r, z)) / (2.0 * h_r)
        assert abs(slope + moments.hl_shift) <= 1e-7


def gradient_at(point: tuple[float, float, float], a: Array, r: float, z: float) -> Array:
    moments = moments_at(a, r, z)
    return np.array([moments.h - point[0], moments.h_u1 + point[1], moments.h_u2 + point[2]])


def test_the_newton_step_solves_the_differenced_hessian() -> None:
    rng = np.random.default_rng(14)
    for _ in range(40):
        row, a, r = near_optimal(rng)
        point, z = golden_point(row), row["z"]
        moments = moments_at(a, r, z)
        g = gradient_at(point, a, r, z)
        hessian = np.empty((3, 3))
        for i in range(3):
            h = 1e-5 * max(a[i], 0.01 * a[2]) * np.eye(3)[i]
            if a[i] > 0.0:
                hessian[i] = (gradient_at(point, a + h, r, z) - gradient_at(point, a - h, r, z)) / (2.0 * h[i])
            else:
                # One-sided, a1 >= 0: second order all the same.
                ahead, far = gradient_at(point, a + h, r, z), gradient_at(point, a + 2.0 * h, r, z)
                hessian[i] = (4.0 * ahead - far - 3.0 * g) / (2.0 * h[i])
        assert np.allclose(hessian, hessian.T, rtol=1e-4, atol=1e-6 * np.abs(hessian).max())
        size = np.abs(hessian).max()
        for free in (True, False):
            step = np.empty(3)
            assert newton_step(moments, a, *g, free, step)
            active = [0, 1, 2] if free else [0, 2]
            assert free or step[1] == 0.0
            residual = (hessian @ step + g)[active]
            assert np.abs(residual).max() <= 1e-4 * size * np.abs(step).max() + 1e-6 * np.abs(g).max()


def test_the_drift_with_the_radius_is_that_of_the_gradient() -> None:
    rng = np.random.default_rng(15)
    for _ in range(40):
        row, a, r = near_optimal(rng)
        point, z = golden_point(row), row["z"]
        moments = moments_at(a, r, z)
        h = 1e-5 * r
        drift = (gradient_at(point, a, r + h, z) - gradient_at(point, a, r - h, z)) / (2.0 * h)
        expected = np.array([moments.k, moments.kt, -moments.kc]) / a[2]
        assert np.abs(drift - expected).max() <= 1e-6 * np.abs(expected).max()


def test_newton_declines_where_the_boundary_is_out_of_reach() -> None:
    step = np.empty(3)
    assert not newton_step(NO_MOMENTS, np.ones(3), 1.0, 1.0, 1.0, True, step)


def test_no_multipliers_beat_the_optimum() -> None:
    rng = np.random.default_rng(16)
    best = -math.inf
    for case in range(3000):
        row = GOLDEN[rng.integers(len(GOLDEN))]
        # From next to the optimum to anywhere at all; at a larger radius the optimum is lower still.
        spread = 10.0 ** rng.uniform(-6.0, 0.5)
        a = golden_multipliers(row) * np.exp(rng.normal(0.0, spread, 3))
        if case % 5 == 0:
            a[1] = 0.0
        elif a[1] == 0.0:
            a[1] = spread * a[0]
        r = row["r"] * (1.0 + (0.0 if case % 2 else 10.0 ** rng.uniform(-6.0, 0.0)))
        value = value_at(golden_point(row), a, r, row["z"])
        assert value <= 1e-12 * (1.0 + a[0] * row["one_minus_q"]), (row, a, r)
        best = max(best, value)
    assert best > -1e-10  # the bound is attained: the test has teeth


def test_every_cut_is_below_every_other_classifiers_value() -> None:
    # The half-space and the slab are admissible for (q, m1, m2 = 0) of their own: their shifted mass bounds every cut.
    rng = np.random.default_rng(17)
    for _ in range(300):
        a, r, z = random_cut(rng, "ordinary")
        eps = float(0.5 * math.erfc(z / math.sqrt(2.0)))
        rim = float(naive.density(z))
        shifted = 0.5 * math.erfc((r - z) / math.sqrt(2.0))
        assert value_at((eps, -rim, 0.0), a, r, z) + 0.5 <= shifted + 1e-12 * (1.0 + a[0] * eps)


def test_maximise_reaches_the_golden_optimum_from_afar() -> None:
    rng = np.random.default_rng(18)
    for row in GOLDEN:
        a = shaken(rng, row)
        value, gap, _, moments = maximise(*golden_point(row), row["z"], row["r"], a, False)
        assert gap <= 1e-9
        assert -1e-10 <= value + gap <= 1e-10
        assert -1e-9 <= value <= 1e-12 * (1.0 + a[0] * row["one_minus_q"])
        assert (a[1] == 0.0) == (row["m1_constraint_active"] == 0.0)
        assert moments == moments_at(a, row["r"], row["z"])


def test_the_normal_quantile_of_the_optimum_is_concave_in_the_radius() -> None:
    # What the look-up's chords rest on, with Phi^-1(q) at radius 0.
    rng = np.random.default_rng(19)
    for row in GOLDEN[::3]:
        a = golden_multipliers(row)
        # Outwards from the golden radius, each step from the last optimum; where the kernel stalls the walk ends.
        walks = []
        for direction in (-1.0, 1.0):
            start, walk = a.copy(), []
            for r in row["r"] * (1.0 + direction * np.cumsum(rng.uniform(0.005, 0.02, 25))):
                value, gap, *_ = maximise(*golden_point(row), row["z"], r, start, False)
                if not gap < 1e-10 or value < -0.4:
                    break
                walk.append((r, float(ndtri(0.5 + value + gap))))
            walks.append(walk)
        points = [(0.0, row["z"]), *reversed(walks[0]), (row["r"], 0.0), *walks[1]]
        assert len(points) >= 12
        for (r0, x0), (r1, x1), (r2, x2) in zip(points, points[1:], points[2:], strict=False):
            assert x1 >= x0 + (x2 - x0) * (r1 - r0) / (r2 - r0) - 1e-8, row
