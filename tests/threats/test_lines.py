import math

import numpy as np
import pytest

from certlut import Table
from certlut.evaluate import evaluate
from certlut.statistics.summary import summarise
from certlut.threats.declare import Direction, Line, Subspace
from certlut.threats.sets import ALL, L1, L2, LENGTH, Ball, Quantity, containment
from reference.naive_statistics import half_space
from reference.simulate import sampled, unit


def test_a_line_has_the_size_of_the_gradient_along_it_and_kappa_1() -> None:
    line = Line([[3.0, 0.0], [0.0, -4.0]], "both")
    assert line.v.tolist() == [[0.6, 0.0], [0.0, -0.8]]
    assert line.kappa(4) == 1.0
    size, rest = Quantity("both", "abs", "upper"), Quantity("all but both", "l2", "lower")
    assert line.needs() == (size, LENGTH, rest)
    m1, m2 = line.cut({size: np.array([0.3, 0.3, 0.6]), LENGTH: np.array([0.5, 0.5, 0.5]), rest: np.array([0.1, 0.45, 0.0])}, 4)
    assert m1.tolist() == [-0.3, -0.3, -0.6]
    assert m2.tolist() == pytest.approx([0.4, 0.45, 0.0], rel=1e-14)
    # In one dimension there is no rest.
    assert Line([-2.0], "both").needs() == (size, LENGTH)
    assert [*Line([-2.0], "both").parts()] == ["both"]


@pytest.mark.parametrize("v", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_bad_lines_are_refused_by_name(v: list[float]) -> None:
    with pytest.raises(ValueError, match=r"line 'both': .*(0.0|nan|inf), expected a finite vector other than 0"):
        Line(v, "both")


def test_a_line_holds_what_lies_along_it_and_no_more() -> None:
    line = Line([3.0, 0.0, 4.0], "both")
    along = [Direction([3.0, 0.0, 4.0], "ray"), Direction([-3.0, 0.0, -4.0], "back"), Line([-3.0, 0.0, -4.0], "again")]
    for inner in along:
        assert containment(inner, line, 3) == 1.0
    one = Ball("one", 2.0, basis=line.v[None])
    for inner, outer in ((one, line), (line, one)):
        assert containment(inner, outer, 3) == pytest.approx(1.0, rel=1e-12)
    assert containment(line, Ball("one1", 1.0, basis=line.v[None]), 3) == pytest.approx(1.4, rel=1e-12)
    mask = Subspace([True, False, True], math.inf, "red")
    assert containment(line, mask, 3) == pytest.approx(0.8)
    for inner in (L1, L2, mask, Direction([3.0, 0.0, 4.1], "other"), Line([0.0, 1.0, 0.0], "third")):
        assert containment(inner, line, 3) == math.inf
    for outer in (Direction([3.0, 0.0, 4.0], "ray"), Subspace([True, True, False], 2, "rest")):
        assert containment(line, outer, 3) == math.inf


@pytest.mark.parametrize("q", [0.8, 0.97])
def test_a_line_is_certified_as_far_as_its_rays_and_a_span_of_one_vector(q: float, shipped: Table) -> None:
    # A half-space that is left on one side only: the ray the other way goes far.
    known = half_space(unit(6, 0), {0.8: 0.84, 0.97: 1.88}[q])
    v = unit(6, 1) + np.random.default_rng(0).standard_normal(6)
    v /= np.linalg.norm(v)
    line, span = Line(v, "line"), Subspace(basis=v[None], name="span")
    toward, back = Direction(v, "toward"), Direction(-v, "back")
    radius = {}
    for threats in ([line], [span], [toward, back]):
        statistics = sampled(known, [*threats, L2], 6, 20_000, 4)
        radius |= evaluate(statistics, threats, 0.001, "adaptive", shipped).radius
    truth = {0.8: 0.84, 0.97: 1.88}[q] / abs(float(v @ known.y)) * float(np.linalg.norm(known.y))
    worse = np.minimum(radius["toward"], radius["back"])
    assert (radius["line"] <= truth).all()
    # It knows the gradient's rest, which a ray does not ask for; and more samples than a span whose last half alone is bet on.
    assert (radius["line"] >= worse).all()
    assert (radius["line"] >= radius["span"]).all()
    assert (radius["line"] > 1.05 * radius["l2"]).all()


@pytest.mark.parametrize("estimator", ["adaptive", "paper"])
def test_the_sign_of_the_gradient_along_a_line_does_not_matter(estimator: str, shipped: Table) -> None:
    known = half_space(unit(4, 0), 0.9)
    v = np.array([0.9, 0.1, -0.3, 0.2])
    found = []
    for sign in (1.0, -1.0):
        line = Line(sign * v, "line")
        statistics = sampled(known, [line], 3, 4000, 1)
        result = evaluate(statistics, [line], 0.001, estimator, shipped)
        assert (result.bounds[Quantity("line", "abs", "upper")] >= abs(float(line.v @ known.y))).all()
        found.append(result.radius["line"])
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_a_line_without_bets_falls_back_on_the_mean_along_it(shipped: Table) -> None:
    known, line = half_space(unit(4, 0), 0.9), Line(unit(4, 0), "line")
    statistics = summarise([known.exact_moments(10**6)], [line], 1.0)
    result = evaluate(statistics, [line], 0.001, "adaptive", shipped)
    size, truth = float(result.bounds[Quantity("line", "abs", "upper")][0]), float(np.linalg.norm(known.y))
    assert truth < size < truth + 0.01
    assert ALL in statistics.parts
