"""Equation (2): the worst vote that information allows, against golden values, a linear program and votes that have it."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certlut.tablegen import radius as first_order
from certlut.tablegen.framework import (
    Constraint,
    Information,
    Status,
    bin,
    curvature,
    curvature_across,
    hermite,
    mixed,
    moment,
    scan,
    slope,
    slope_across,
    tail,
    value,
    vote_at,
    worst_classifier,
    worst_vote,
)
from reference import known_votes as known

DATA = Path(__file__).resolve().parents[1] / "data"
THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
# What SOLVED promises (worst.py).
GAP = 1e-8


def halved(information: Information, f: known.Rectangles) -> Information:
    """Its functions at the moments of half f, half a coin: away from the edge of what is possible."""
    coin = [0.5 if c.name == "value" else 0.0 for c in information.constraints]
    return information.at([0.5 * f.level(c) + 0.5 * x for c, x in zip(information.constraints, coin, strict=True)])


def rim(q: float) -> float:
    """The longest gradient that q allows."""
    return float(known.density(ndtri(q)))


# Against what is known


def test_the_golden_tails() -> None:
    golden = np.genfromtxt(DATA / "tails_golden.csv", delimiter=",", names=True)
    assert len(golden) == 24
    for row in golden:
        tails = [tail(tau, row[f"p{k}"]) for k, tau in enumerate(THRESHOLDS, start=1)]
        found = worst_vote(
            Information([value(1.0 - row["eps"]), *tails]), math.hypot(row["a"], row["b"]), math.atan2(row["b"], row["a"])
        )
        assert found.status == Status.SOLVED
        assert found.value == pytest.approx(1.0 - row["B"], abs=1e-7)
        assert found.error < 1e-10


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, math.pi, -2.0])
def test_the_vote_alone_leaves_the_half_space(angle: float) -> None:
    for q, r in ((0.6, 0.2), (0.9, 1.0), (0.99, 3.0), (1.0 - 1e-6, 4.0), (0.3, 1.0)):
        found = worst_vote(Information([value(q)]), r, angle)
        assert found.status == Status.SOLVED
        assert found.value == pytest.approx(ndtr(ndtri(q) - r), abs=1e-11)
        assert found.lower <= ndtr(ndtri(q) - r)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5, 2.6])
def test_an_exact_gradient_is_the_first_order_certificate_turned(angle: float) -> None:
    # Gradient of length g along -t; the shift has it at `angle` to its own direction.
    q = 0.93
    g = 0.6 * rim(q)
    information = Information([value(q), slope(-g, "="), slope_across(0.0, "=")])
    r = float(first_order(q, -g * math.cos(angle), abs(g * math.sin(angle))))
    found = worst_vote(information, r, angle)
    assert found.status == Status.SOLVED
    assert found.value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(
    ("dimensions", "more"), [(1, ()), (2, (slope_across(0, "="),)), (2, (slope_across(0, "="), mixed(0), curvature_across(0)))]
)
def test_second_order_is_the_linear_programs(dimensions: int, more: tuple[Constraint, ...]) -> None:
    rng = np.random.default_rng(40 + len(more))
    for _ in range(10 if dimensions == 1 else 3):
        f, r = known.Rectangles(rng, dimensions), float(rng.uniform(0.3, 2.0))
        information = halved(Information([value(0, "="), slope(0, "="), curvature(0), *more]), f)
        names, levels = zip(*((c.name, c.level) for c in information.constraints), strict=True)
        expected = known.extrapolated(names, levels, r, (300, 1) if dimensions == 1 else (80, 30))
        found = worst_vote(information, r)
        assert found.status == Status.SOLVED
        assert found.value == pytest.approx(expected, abs=1e-5)


# Sound, monotone, never silent


@pytest.mark.parametrize("dimensions", [1, 2])
def test_no_vote_with_the_information_is_below_the_worst_and_more_of_it_never_lowers_the_worst(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    for _ in range(12):
        f, information = known.random_information(rng, dimensions, most=4)
        r = float(rng.uniform(0.1, 3.0))
        angle = 0.0 if dimensions == 1 else float(rng.uniform(-math.pi, math.pi))
        true = f.vote(r * math.cos(angle), r * math.sin(angle))
        votes = {}
        for k in range(1, len(information) + 1):
            for chosen in itertools.combinations(range(len(information)), k):
                votes[chosen] = worst_vote(Information(information.constraints[i] for i in chosen), r, angle)
                assert votes[chosen].status != Status.INFEASIBLE
                assert votes[chosen].lower <= true + 1e-13
                for i in range(k if k > 1 else 0):
                    less = votes[chosen[:i] + chosen[i + 1 :]]
                    assert votes[chosen].value + votes[chosen].gap + GAP >= less.lower


@pytest.mark.parametrize(("dimensions", "plane", "count"), [(1, False, 150), (2, False, 80), (2, True, 6)])
def test_random_feasible_information_is_solved_or_said_to_be_hard(dimensions: int, plane: bool, count: int) -> None:
    rng = np.random.default_rng(10 + dimensions)
    hard = 0
    for _ in range(count):
        f, information = known.random_information(rng, dimensions, plane=plane)
        r = float(rng.uniform(0.1, 3.0))
        angle = 0.0 if dimensions == 1 or rng.random() < 0.5 else float(rng.uniform(-math.pi, math.pi))
        found = worst_vote(information, r, angle)
        assert found.status != Status.INFEASIBLE
        assert found.lower <= f.vote(r * math.cos(angle), r * math.sin(angle)) + 1e-13
        # Signs of multipliers: what weak duality rests on.
        for a, c in zip(found.multipliers, information.constraints, strict=True):
            assert a >= 0.0 or c.sense != ">="
            assert a <= 0.0 or c.sense != "<="
        hard += found.status == Status.HARD
        if found.status == Status.HARD:
            assert found.gap > GAP
    assert hard <= 0.03 * count


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_solved_vote_is_attained(dimensions: int) -> None:
    """The optimality conditions, by sums over a fine grid of noise: the set has the information, and its vote is the worst."""
    rng = np.random.default_rng(20 + dimensions)
    t = np.linspace(-9.0, 12.0, 4_000_001 if dimensions == 1 else 4201)
    s = np.linspace(-9.0, 9.0, 3601) if dimensions == 2 else np.zeros(1)
    weight = known.density(t)[:, None] * (known.density(s) * (s[1] - s[0]) if dimensions == 2 else 1.0) * (t[1] - t[0])
    # What an edge between two points may weigh, three edges together.
    close = 1.2 * float(t[1] - t[0])
    for _ in range(4):
        f = known.Rectangles(rng, dimensions)
        constraints = [
            value(0, "="),
            slope(0, "="),
            curvature(0),
            *([slope_across(0, "=")] if dimensions == 2 else [hermite(3, 0)]),
        ]
        information = halved(Information(constraints), f)
        worst = worst_classifier(information, 1.1)
        assert worst.missed < 1e-6
        holds = worst(t[:, None], s) * weight
        for c in information.constraints:
            assert float((holds * c.psi(t[:, None], s)).sum()) == pytest.approx(c.level, abs=close)
        likelihood = np.exp(1.1 * t - 0.5 * 1.1**2)[:, None]
        assert float((holds * likelihood).sum()) == pytest.approx(worst.vote.value, abs=close)


@pytest.mark.parametrize(
    "constraints",
    [
        [value(1.0 + 1e-6)],
        [value(-1e-6, "<=")],
        [tail(1.0, -1e-6)],
        [bin(0.0, 1.0, 0.5)],
        [hermite(3, 2.0)],
        [value(0.2, "<="), bin(-1.0, 1.0, 0.3)],
        [value(0.9, "="), slope((1.0 + 1e-8) * rim(0.9))],
        [value(0.9, "="), slope(-0.6 * (1.0 + 1e-6) * rim(0.9), "<="), slope_across(0.8 * (1.0 + 1e-6) * rim(0.9))],
        [value(0.9, "="), vote_at(1.0, 1.0 - 1e-3)],
        [mixed(0.4)],
        [value(0.9), moment(lambda t, s: s * s - 1.0, -0.4)],
    ],
    ids=lambda constraints: ", ".join(c.name for c in constraints),
)
def test_information_that_no_classifier_has_is_proved_to_be_so(constraints: list[Constraint]) -> None:
    found = worst_vote(Information(constraints), 1.0)
    assert found.status == Status.INFEASIBLE
    assert math.isnan(found.value)
    # The proof, by sums: E (sum a psi)_+ < sum a level.
    t, s = np.linspace(-9.005, 9.005, 1802)[:, None], np.linspace(-9.0, 9.0, 1801)
    weight = known.density(t) * known.density(s) * 1e-4
    lam = sum(a * c.psi(t, s) for a, c in zip(found.multipliers, constraints, strict=True))
    told = sum(a * c.level for a, c in zip(found.multipliers, constraints, strict=True))
    assert float((np.maximum(lam, 0.0) * weight).sum()) <= told + 1e-4
    with pytest.raises(ValueError, match="no classifier has the information"):
        scan(Information(constraints))
    with pytest.raises(ValueError, match="no classifier has the information"):
        worst_classifier(Information(constraints), 1.0)


@pytest.mark.parametrize("share", [1.0, 1.0 - 1e-12, 1.0 - 1e-9, 1.0 - 1e-6])
def test_information_at_the_edge_of_what_is_possible_is_not_called_impossible(share: float) -> None:
    q = 0.9
    # The one half-space against the shift: its vote rises.
    found = worst_vote(Information([value(q, "="), slope(share * rim(q), "=")]), 1.0)
    assert found.status == Status.SOLVED
    assert found.value == pytest.approx(ndtr(ndtri(q) + 1.0), abs=1e-4)
    assert found.lower <= ndtr(ndtri(q) + 1.0) + 1e-12


# The pieces


def test_any_function_serves_as_information() -> None:
    ready = Information([value(0.9), slope(-0.05), hermite(3, 0.02), tail(1.0, 0.03)])
    own = [
        moment(lambda t: np.ones_like(t), 0.9, ">=", name="value"),
        moment(lambda t: t, -0.05, ">="),
        moment(lambda t: t**3 - 3.0 * t, 0.02),
        moment(lambda t: (t >= 1.0) * 1.0, float(ndtr(-1.0)) - 0.03, ">=", breaks=[1.0]),
    ]
    expected, found = worst_vote(ready, 1.2), worst_vote(Information(own), 1.2)
    assert found.value == pytest.approx(expected.value, abs=1e-10)
    assert found.error < 1e-10
    assert found.multipliers == pytest.approx(expected.multipliers, abs=1e-5)


def test_a_function_of_the_plane_gets_what_its_closed_form_gets() -> None:
    for angle in (0.0, 1.0, -1.0):
        ready = worst_vote(Information([value(0.9), slope(-0.05), slope_across(0.08), mixed(0.02)]), 1.2, angle)
        own = [value(0.9), slope(-0.05), moment(lambda t, s: s, 0.08, ">="), moment(lambda t, s: t * s, 0.02)]
        found = worst_vote(Information(own), 1.2, angle)
        assert ready.status == found.status == Status.SOLVED
        assert found.value == pytest.approx(ready.value, abs=1e-8)
        assert abs(found.value - ready.value) <= found.error + found.gap + ready.gap + 1e-9


def test_a_mirror_changes_nothing_but_the_side() -> None:
    one = Information([value(0.9), slope(-0.05), slope_across(0.08)])
    other = Information([value(0.9), slope(-0.05), slope_across(-0.08, "<=")])
    assert worst_vote(one, 1.2, 0.7).value == pytest.approx(worst_vote(other, 1.2, -0.7).value, abs=1e-12)
    assert worst_vote(one, 1.2, 0.7).value > worst_vote(one, 1.2, -0.7).value + 0.01


def test_a_vote_known_elsewhere_is_the_answer_there_and_holds_its_neighbours() -> None:
    information = Information([value(0.9), vote_at(2.0, 0.7)])
    assert worst_vote(information, 2.0).value == pytest.approx(0.7, abs=1e-8)
    for r in (1.6, 1.9, 2.3):
        # The quantile of a vote changes no faster than the shift.
        assert ndtri(worst_vote(information, r).value) >= ndtri(0.7) - abs(r - 2.0) - 1e-8
    assert worst_vote(Information([value(0.9)]), 1.9).value < 0.3


def test_the_worst_set_of_moments_along_a_line_is_a_union_of_intervals() -> None:
    information = Information([value(0.9, "="), slope(-0.1, "="), curvature(-0.1), hermite(3, 0.05)])
    worst = worst_classifier(information, 1.2)
    left, right = (np.array(ends) for ends in zip(*worst.intervals(), strict=True))
    for c in information.constraints:
        assert c.integral is not None
        assert float(c.integral(left, right).sum()) == pytest.approx(c.level, abs=1e-6)
    assert float(known.mass(left - 1.2, right - 1.2).sum()) == pytest.approx(worst.vote.value, abs=1e-6)
    inside = [x + 1e-6 if math.isfinite(x) else -50.0 for x in left]
    assert worst(np.array(inside)).all()
    assert not worst(right[np.isfinite(right)] + 1e-6).any()
    with pytest.raises(ValueError, match="across the t axis"):
        worst_classifier(information, 1.2, 0.3).intervals()


def test_levels_of_a_set_are_its_moments() -> None:
    information = Information([value(0), slope(0), slope_across(0), tail(1.0, 0.0), tail(0.5, 0.0, side=-1)]).of([-0.5], [math.inf])
    levels = [c.level for c in information.constraints]
    assert levels == pytest.approx([ndtr(0.5), known.density(0.5), 0.0, ndtr(-1.0), 0.0], abs=1e-15)
    with pytest.raises(ValueError, match="closed form"):
        Information([moment(np.sin, 0.0)]).of([0.0], [1.0])


def test_bad_arguments_are_value_errors_that_name_them() -> None:
    for build, name in (
        (lambda: Information([]), "at least one constraint"),
        (lambda: value(math.nan), "value: level = nan"),
        (lambda: hermite(0, 0.1), "k = 0"),
        (lambda: bin(1.0, 1.0, 0.1), "a < b"),
        (lambda: tail(1.0, 0.1, side=0), "side = 0"),
        (lambda: value(0.9, ">"), "'>' is not a valid Sense"),
        (lambda: moment(lambda t, s, w: t, 0.1), "psi takes 3 arguments"),
        (lambda: worst_vote(Information([value(0.9)]), -1.0), "r = -1.0"),
        (lambda: worst_vote(Information([value(0.9)]), math.inf), "r = inf"),
        (lambda: worst_vote(Information([value(0.9)]), 26.0), "r = 26.0"),
        (lambda: worst_vote(Information([moment(lambda t: np.where(t > 0.0, t, np.nan), 0.1)]), 1.0), "moment: E psi"),
        (lambda: worst_vote(Information([value(0.9)]), 1.0, math.nan), "angle = nan"),
    ):
        with pytest.raises(ValueError, match=name):
            build()


def test_the_documentations_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DATA.parents[1] / "docs" / "information.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "information.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] in text
