"""Radii of any information: golden values, Theorem 2, regions that are not star-shaped."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from certlut.tablegen.framework import Information, Status, bin, hermite, radius, region, scan, slope, slope_across, tail, value
from certlut.tablegen.framework.radius import TOLERANCE, _covered
from reference import known_votes as known

DATA = Path(__file__).resolve().parents[1] / "data"


def test_the_golden_radii() -> None:
    golden = np.genfromtxt(DATA / "radius_golden.csv", delimiter=",", names=True)
    assert len(golden) == 107
    for row in golden:
        found = scan(Information([value(row["q"]), slope(row["m1"]), slope_across(row["m2"])]))
        assert found.status == Status.SOLVED
        assert found.radius == pytest.approx(row["r"], rel=1e-7)
        assert found.radius <= row["r"] * (1.0 + 1e-12)
        assert found.upper > row["r"] * (1.0 - 1e-7)


@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi])
def test_the_vote_alone_gives_cohens_radius(angle: float) -> None:
    for q in (0.501, 0.7, 0.99, 1.0 - 1e-8):
        assert radius(Information([value(q)]), angle) == pytest.approx(ndtri(q), rel=1e-8, abs=1e-9)
    assert radius(Information([value(0.4)]), angle) == 0.0


def test_a_region_that_comes_back_ends_where_it_first_ends() -> None:
    # Votes against between .3 and 1.75: at a shift of 1 they win, at 2 they have lost again.
    f = known.Profile("gap", lambda t: 1.0 - ((t > 0.3) & (t < 1.75)), [0.3, 1.75])
    bins = [bin(x, x + 0.25, 0.0) for x in np.arange(-1.0, 4.0, 0.25)]
    information = Information([value(0.0), *bins])
    information = information.at([f.level(c) for c in information.constraints])
    truth = f.truth()
    assert f.vote(1.0) < 0.5 < f.vote(2.0)
    assert 0.9 * truth < radius(information) <= truth
    assert scan(information).upper < 1.0


@given(st.floats(0.0, 3.0), st.floats(0.01, 3.0), st.lists(st.floats(-4.0, 8.0), min_size=1, max_size=7, unique=True))
def test_between_two_points_that_cover_each_other_no_vote_is_below_one_half(low: float, h: float, ends: list[float]) -> None:
    edges = np.array([-math.inf, *sorted(ends), math.inf])
    left, right = edges[:-1][::2], edges[1:][::2]

    def vote(r: float) -> float:
        return float(known.mass(left - r, right - r).sum())

    x, y = vote(low) - 0.5, vote(low + h) - 0.5
    if x >= 0.0 and y >= 0.0 and _covered(low, low + h, x, y):
        assert min(vote(r) for r in np.linspace(low, low + h, 101)) >= 0.5 - 1e-12


def test_more_orders_never_shorten_the_radius_and_reach_the_truth() -> None:
    orders = (0, 2, 8)
    for f in known.dozen():
        moments = [value(0.0, "="), *(hermite(k, 0.0) for k in range(1, max(orders) + 1))]
        levels = [f.level(c) for c in moments]
        radii = [scan(Information(moments[: k + 1]).at(levels[: k + 1]), limit=4.0).radius for k in orders]
        truth = f.truth()
        assert radii[0] == pytest.approx(ndtri(levels[0]), rel=1e-8)
        assert all(y >= x * (1.0 - 1e-6) for x, y in itertools.pairwise(radii)), f.name
        assert radii[-1] <= truth * (1.0 + 1e-8), f.name
        assert radii[-1] >= 0.95 * truth, f.name


def test_what_the_linear_program_misses_of_many_levels_is_not_taken_for_convergence() -> None:
    f = known.dozen()[8]
    moments = [value(0.0, "="), *(hermite(k, 0.0) for k in range(1, 13))]
    information = Information(moments).at([f.level(c) for c in moments])
    assert radius(information) == pytest.approx(f.truth(), abs=1e-7)


def test_tails_along_a_ray_lie_between_cohen_and_the_truth() -> None:
    f = known.dozen()[1]
    information = Information([value(0.0), *(tail(tau, 0.0) for tau in np.linspace(0.5, 4.0, 13))])
    information = information.at([f.level(c) for c in information.constraints])
    found = radius(information)
    assert 1.2 * ndtri(f.vote(0.0)) < found <= f.truth()
    # Fewer thresholds tell less.
    assert radius(Information(information.constraints[::3])) <= found * (1.0 + TOLERANCE)


def test_a_ray_on_which_the_vote_never_falls_ends_at_the_limit() -> None:
    toward = Information([value(0.0), slope(0.0, "=")]).of([-1.0], [math.inf])
    found = scan(toward, limit=3.0)
    assert found.radius == 3.0
    assert found.upper == math.inf
    assert radius(toward, limit=3.0) == 3.0


def test_a_region_is_its_radii() -> None:
    information = Information([value(0.9), slope(-0.05, "="), slope_across(0.0, "=")])
    angles = np.linspace(0.0, math.pi, 5)
    radii = region(information, angles, limit=6.0)
    assert radii == pytest.approx([radius(information, a, limit=6.0) for a in angles], rel=1e-12)
    # Against the gradient, which is where t grows, the region ends first; to both sides it is the same.
    assert (np.diff(radii) > 0.0).all()
    assert region(information, -angles, limit=6.0) == pytest.approx(radii, rel=1e-7)
