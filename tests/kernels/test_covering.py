"""certlut.kernels.covering: every shift of a ball lies under beta, some lie on it; the outline's lengths against dense sampling."""

import math

import numpy as np
import pytest

from certlut.kernels.covering import Covering, across, furthest, furthest_within, reach, turning_point

LP = [(p, m) for p in (1.0, 1.3, 1.9, 2.0, 2.5, 4.0, math.inf) for m in (1, 2, 3, 5, 8, 40)]


def norm(x: np.ndarray, p: float) -> np.ndarray:
    return np.abs(x).max(axis=-1) if p == math.inf else (np.abs(x) ** p).sum(axis=-1) ** (1.0 / p)


def shifts(rng: np.random.Generator, p: float, m: int, n: int = 4000) -> np.ndarray:
    """Random shifts of the unit ball, many of them with equal, tiny or no components, and on its surface."""
    x = rng.standard_normal((n, m)) * 10.0 ** rng.uniform(-2.0, 0.0, (n, m))
    x[rng.random((n, m)) < 0.3] = 0.0
    equal = rng.integers(1, m + 1, n)
    x = np.where((np.arange(m) < equal[:, None]) & (rng.random((n, 1)) < 0.5), 0.3, x)
    x[norm(x, p) == 0.0, 0] = 1.0
    # Next to the surface 1 - a^p is all rounding.
    return x / norm(x, p)[:, None] * np.where(rng.random((n, 1)) < 0.5, 1.0 - 1e-9, rng.random((n, 1)))


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, b): the largest component, the length of the rest."""
    a = np.abs(x).max(axis=1)
    return a, np.sqrt(np.maximum((x**2).sum(axis=1) - a**2, 0.0))


@pytest.mark.parametrize(("p", "m"), LP)
def test_no_shift_of_the_ball_lies_above_beta(p: float, m: int) -> None:
    a, b = split(shifts(np.random.default_rng([51, m]), p, m))
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        assert y <= across(min(x, 1.0), p, m - 1.0) * (1.0 + 1e-6)


@pytest.mark.parametrize(("p", "m"), [(p, m) for p, m in LP if m > 1])
def test_beta_is_attained(p: float, m: int) -> None:
    for a in np.random.default_rng([52, m]).uniform(0.02, 1.0, 60).tolist():
        rest = 1.0 if p == math.inf else 1.0 - a**p
        x = np.zeros(m)
        x[0] = a
        if p >= 2.0:
            x[1:] = a if p == math.inf else min(a, (rest / (m - 1)) ** (1.0 / p))
        else:
            for i in range(1, m):
                x[i] = min(a, max(rest, 0.0) ** (1.0 / p))
                rest -= x[i] ** p
        assert norm(x, p) <= 1.0 + 1e-12
        assert split(x[None])[1][0] == pytest.approx(across(a, p, m - 1.0), rel=1e-7, abs=1e-9)


def test_below_half_more_coordinates_help_an_l1_shift() -> None:
    # Not 1 - a = .7: three components of .3 and one of .1.
    assert across(0.3, 1.0, 99.0) == pytest.approx(math.sqrt(2 * 0.09 + 0.01), rel=1e-12)
    assert across(0.6, 1.0, 99.0) == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_sparse_shifts(k: int) -> None:
    rng = np.random.default_rng([53, k])
    x = np.zeros((3000, 12))
    for row in x:
        row[rng.choice(12, k, replace=False)] = rng.standard_normal(k) * 10.0 ** rng.uniform(-1.0, 0.0, k)
    x /= np.linalg.norm(x, axis=1)[:, None]
    covering = Covering.sparse(k)
    for a, b in zip(*split(x), strict=True):
        assert b <= across(min(float(a), 1.0), covering.p, covering.w) * (1.0 + 1e-12) + 1e-7
    a = 0.9 if k > 1 else 1.0
    assert across(a, covering.p, covering.w) == pytest.approx(math.sqrt(1.0 - a * a), abs=1e-12)


@pytest.mark.parametrize("gap", [0.01, 0.1, 0.4, 1.2])
def test_a_net_s_shifts(gap: float) -> None:
    covering = Covering.net(gap)
    rng = np.random.default_rng(54)
    for length, angle in rng.uniform((0.1, 0.0), (1.0, gap), (500, 2)).tolist():
        assert length * math.sin(angle) <= across(length * math.cos(angle), covering.p, covering.w) * (1.0 + 1e-12)
    assert across(math.cos(gap), covering.p, covering.w) == pytest.approx(math.sin(gap), rel=1e-7)
    assert covering.last == pytest.approx(gap, rel=1e-12)


@pytest.mark.parametrize(("p", "m"), LP)
def test_the_longest_shift_of_a_cell(p: float, m: int) -> None:
    rng = np.random.default_rng([55, m])
    for _ in range(60):
        low, high = np.sort(rng.uniform(0.01, 1.0, 2)).tolist()
        if rng.random() < 0.3:
            high = min(1.0, low * 1.02)
        a = np.linspace(low, high, 4001)
        lengths = [math.hypot(x, across(x, p, m - 1.0)) for x in a.tolist()]
        bound = furthest(low, high, p, m - 1.0)
        assert bound >= max(lengths)
        assert bound <= max(lengths) * (1.0 + 3e-3)


@pytest.mark.parametrize(("p", "m"), [(p, m) for p, m in LP if m > 1])
def test_reach_is_the_boundary_s_length(p: float, m: int) -> None:
    w = m - 1.0
    for a in np.random.default_rng([56, m]).uniform(turning_point(p, w) if p >= 2.0 else 0.05, 1.0, 60).tolist():
        b = across(a, p, w)
        angle = math.atan2(b, a)
        if p == math.inf or angle > Covering(p, w).last:
            continue
        # Beside a corner the length falls like a root of the angle.
        assert reach(angle, p, w) == pytest.approx(math.hypot(a, b), rel=1e-6)
    assert reach(0.0, p, w) == pytest.approx(1.0)
    if p == math.inf:
        assert reach(0.5, p, w) == pytest.approx(1.0 / math.cos(0.5))


@pytest.mark.parametrize(("p", "m"), [(p, m) for p, m in LP if m > 1])
def test_the_longest_shift_between_two_angles(p: float, m: int) -> None:
    covering = Covering.lp(p, m)
    rng = np.random.default_rng([57, m])
    for _ in range(60):
        low, high = np.sort(rng.uniform(0.0, covering.last * 1.1, 2)).tolist()
        bound = furthest_within(low, high, covering.p, covering.w)
        if low > covering.last:
            assert bound == 0.0
            continue
        angles = np.linspace(low, min(high, covering.last), 3000)
        lengths = [reach(x, covering.p, covering.w) for x in angles.tolist()]
        assert max(lengths) * (1.0 - 1e-12) <= bound <= max(lengths) * (1.0 + 0.03)


def test_kappa_is_the_longest_shift() -> None:
    for p, m in LP:
        covering = Covering.lp(p, m)
        assert covering.kappa == pytest.approx(m ** max(0.0, 0.5 - 1.0 / p))
        assert covering.kappa <= furthest(1e-3, 1.0, p, m - 1.0)
        assert furthest(1e-3, 1.0, p, m - 1.0) <= covering.kappa * (1.0 + 1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Covering(0.9, 3.0), "p"),
        (lambda: Covering(math.nan, 3.0), "p"),
        (lambda: Covering(1.0, 2.5), "whole"),
        (lambda: Covering(2.0, -1.0), "w"),
        (lambda: Covering(2.0, math.inf), "w"),
        (lambda: Covering.lp(1.0, 0), "w"),
        (lambda: Covering.net(math.pi / 2.0), "gap"),
        (lambda: Covering.net(-0.1), "gap"),
    ],
)
def test_families_that_do_not_exist_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
