"""The hinge integrals under the worst vote: closed forms against sums, panels against finer ones, one route against another."""

import math

import numpy as np
import pytest

from certlut.tablegen.framework import curvature, hermite, mixed, moment, panels, slope, slope_across, tail, value
from certlut.tablegen.framework.dual import Hinges
from certlut.tablegen.framework.line import Line
from certlut.tablegen.framework.plane import Plane
from certlut.tablegen.framework.quadrature import ridders
from certlut.tablegen.framework.strip import Strip, section
from reference import known_votes as known

INFORMATION = (value(0.9), slope(0.0), tail(1.0, 0.05), curvature(0.0), slope_across(0.0), mixed(0.0))


@pytest.mark.parametrize(("a", "b"), [(1.2, 0.0), (0.9, 0.8), (-0.7, 0.3)])
def test_the_integrals_are_sums_over_the_plane(a: float, b: float) -> None:
    t, s = np.linspace(-9.0, 10.0, 1901)[:, None], np.linspace(-9.0, 10.0, 1901)
    # Off the threshold of the tail, where psi jumps.
    t = t + 0.005
    weight = known.density(t) * known.density(s) * 1e-4
    likelihood = np.exp(a * t + b * s - 0.5 * (a * a + b * b))
    rng = np.random.default_rng(3)
    for _ in range(3):
        multipliers = np.array([1.0, 0.4, 0.5, 0.2, 0.6, 0.3]) * rng.normal(1.0, 0.5, size=6)
        surplus = sum(x * c.psi(t, s) for x, c in zip(multipliers, INFORMATION, strict=True)) - likelihood
        against = (surplus < 0.0) * weight
        moments = [float((against * c.psi(t, s)).sum()) for c in INFORMATION]
        found = Strip(INFORMATION, a, b)(multipliers)
        assert found.value == pytest.approx(float((-surplus * against).sum()), abs=3e-5)
        assert found.moments == pytest.approx(moments, abs=3e-4)


def test_the_plane_gets_the_closed_forms_of_a_strip() -> None:
    rng = np.random.default_rng(4)
    for a, b in ((1.2, 0.0), (0.9, 0.8), (0.2, 1.5)):
        strip, plane = Strip(INFORMATION, a, b), Plane(INFORMATION, a, b)
        assert plane.mean == pytest.approx(strip.mean, abs=1e-12)
        multipliers = np.array([1.0, 0.4, 0.5, 0.2, 0.6, 0.3]) * rng.normal(1.0, 0.3, size=6)
        expected, found = strip(multipliers), plane(multipliers)
        assert found.value == pytest.approx(expected.value, abs=1e-9)
        # As exact as its panels are asked to be.
        assert found.moments == pytest.approx(expected.moments, abs=3e-6)
        assert found.hessian == pytest.approx(expected.hessian, abs=3e-3)


def test_the_strip_gets_the_intervals_of_a_line() -> None:
    rng = np.random.default_rng(5)
    constraints = INFORMATION[:4]
    line, strip = Line(constraints, 1.2), Strip((*constraints, slope_across(0.0)), 1.2, 0.0)
    for _ in range(20):
        multipliers = np.array([1.0, 0.4, 0.5, 0.2]) * rng.normal(1.0, 0.5, size=4)
        expected, found = line(multipliers), strip(np.append(multipliers, 1e-9))
        assert found.value == pytest.approx(expected.value, abs=1e-9)
        assert found.moments[:4] == pytest.approx(expected.moments, abs=1e-7)
        # The Hessian is that of a slight tilt: a guide.
        close = 0.02 * float(np.abs(expected.hessian).max())
        assert found.hessian[:4, :4] == pytest.approx(expected.hessian, abs=close)
        assert found.hessian[4, 4] == pytest.approx(strip(np.append(multipliers, 0.0)).hessian[4, 4], rel=0.05)


def test_the_gradient_and_the_hessian_are_the_derivatives() -> None:
    for hinges in (Line(INFORMATION[:4], 1.2), Strip(INFORMATION, 0.9, 0.5), Plane(INFORMATION, 0.9, 0.5)):
        a = np.array([1.0, 0.4, 0.5, 0.2, 0.6, 0.3])[: len(hinges.mean)]
        here = hinges(a)
        for i in range(len(a)):
            step = np.zeros_like(a)
            step[i] = 1e-5
            up, down = hinges(a + step), hinges(a - step)
            # d/da_i E (L - Lam)_+ = -E h psi_i.
            assert (up.value - down.value) / 2e-5 == pytest.approx(-here.moments[i], abs=1e-5)
            assert (down.moments - up.moments) / 2e-5 == pytest.approx(
                here.hessian[i], abs=2e-3 * (1.0 + np.abs(here.hessian).max())
            )


@pytest.mark.parametrize("b", [0.0, 1e-3, 0.3, 2.0])
def test_a_section_is_where_the_surplus_is_not_negative(b: float) -> None:
    rng = np.random.default_rng(6)
    p, c = rng.normal(size=500) * 3.0, rng.normal(size=500) * rng.choice([1e-3, 1.0, 30.0], size=500)
    c[::7] = 0.0
    log_e = rng.normal(size=500) * 3.0
    low, high = section(p, c, log_e, b)
    s = rng.uniform(-8.0, 8.0, size=(200, 1))
    surplus = p + c * s - np.exp(log_e + b * s)
    # Not where s is next to an end.
    clear = (np.abs(s - low) > 1e-6) & (np.abs(s - high) > 1e-6)
    assert (((surplus >= 0.0) == ((s >= low) & (s <= high))) | ~clear).all()


@pytest.mark.parametrize("shift", [(1.2, 0.0), (2.4, 0.13), (0.5, 1.4), (2.5, 1e-3)])
def test_the_error_covers_what_finer_panels_change(shift: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    constraints = (value(0.9), hermite(3, 0.0), tail(1.0, 0.05), slope_across(0.0))
    rng = np.random.default_rng(7)
    # Steep edges next to a panel's end, and a lobe between its points, are what a rule by itself overlooks.
    tries = [np.array([16.0511167862712, 1.5964796610031904, 0.0, 0.0]), np.array([1.0, 0.3, 0.0, 1e-5])]
    tries += [np.exp(rng.normal(size=4)) * [1.0, 0.3, 1.0, 10.0 ** rng.uniform(-6, 0)] for _ in range(10)]
    coarse = [Strip(constraints, *shift)(a) for a in tries]
    monkeypatch.setattr(panels, "PANEL", 0.06)
    monkeypatch.setattr(panels, "FINE", 0.01)
    for a, x in zip(tries, coarse, strict=True):
        y = Strip(constraints, *shift)(a)
        assert abs(x.value - y.value) <= x.error + y.error
        assert x.error < 1e-9


def test_a_line_finds_two_edges_between_two_points_of_its_grid() -> None:
    # Lam - L touches zero and comes back within 1e-3: sampled every .04.
    r = 1.0
    top = 0.7123
    level = math.exp(r * top - 0.5 * r * r)
    line = Line((value(0.9), slope(0.0)), r)
    for depth in (1e-7, 1e-10):
        # The tangent of L at `top`, lifted.
        a = np.array([level * (1.0 - r * top) + depth, level * r])
        edges, smooth, first, missed = line.edges(a, 1.0)
        half = math.sqrt(2.0 * depth / level) / r
        assert edges == pytest.approx([top - half, top + half], abs=1e-4 * half + 1e-9)
        assert smooth.all()
        assert not first
        assert missed == 0.0
    assert len(line.edges(a - [1e-3, 0.0], 1.0)[0]) == 0


def test_a_jump_is_an_edge_that_does_not_move() -> None:
    line = Line((value(0.9), tail(1.0, 0.05)), 1.0)
    edges, smooth, first, _ = line.edges(np.array([0.5, 5.0]), 1.0)
    # L passes .5 at -.19; Lam jumps to 5.5 at 1, which L passes at 2.2.
    assert edges == pytest.approx([math.log(0.5) + 0.5, 1.0, math.log(5.5) + 0.5], abs=1e-12)
    assert smooth.tolist() == [True, False, True]
    assert first


def test_roots_are_roots() -> None:
    x = np.linspace(0.1, 3.0, 30)
    cells = np.stack([np.zeros(30), np.full(30, 4.0), -x, 64.0 - x], axis=1)
    assert ridders(lambda t: t**3 - x, cells) == pytest.approx(np.cbrt(x), rel=1e-13)
    assert len(ridders(lambda t: t, np.empty((0, 4)))) == 0


def test_a_function_without_a_closed_form_is_integrated() -> None:
    own = (moment(lambda t: np.ones_like(t), 0.9), moment(lambda t: np.abs(t), 0.9, breaks=[0.0]))
    ready: Hinges = Line((value(0.9),), 1.0)
    line = Line(own, 1.0)
    assert line.mean == pytest.approx([1.0, math.sqrt(2.0 / math.pi)], abs=1e-14)
    assert line.size == pytest.approx([1.0, 1.0], abs=1e-13)
    assert line(np.array([1.3, 0.0])).value == pytest.approx(ready(np.array([1.3])).value, abs=1e-14)
