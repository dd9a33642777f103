"""certlut.tablegen.grid: knots, presets, cards."""

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.tablegen.grid import PRESETS, Axis, GridSpec, grid_spec

FRESH = settings(deadline=None, derandomize=True, max_examples=100)
GRID = GridSpec(Axis(0.1, 3.0, 5, "sqrt"), Axis(0.0, 0.9, 4, "rim"), Axis(0.0, 180.0, 7, "linear"))

# What makes the knots of each spacing equidistant, written out once more.
FORWARD = {
    "linear": lambda x: x,
    "sqrt": np.sqrt,
    "rim": lambda x: np.sqrt(-np.log(1.0 - x)),
    "rim.7": lambda x: (-np.log(1.0 - x)) ** 0.7,
}


@FRESH
@given(st.sampled_from(sorted(FORWARD)), st.floats(0.0, 0.5), st.floats(0.51, 0.9999), st.integers(2, 300))
def test_knots_are_increasing_hit_both_ends_and_are_equidistant_after_the_transform(
    spacing: str, low: float, high: float, count: int
) -> None:
    knots = Axis(low, high, count, spacing).knots()
    assert knots.shape == (count,)
    assert knots.dtype == np.float64
    assert knots[0] == low
    assert knots[-1] == high
    assert (np.diff(knots) > 0.0).all()
    steps = np.diff(FORWARD[spacing](knots))
    assert np.allclose(steps, steps.mean(), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 5, 9, 45, 49, 89, 180])
def test_every_preset_spacing_of_theta_covers_the_half_circle_in_order(count: int) -> None:
    for spec in PRESETS.values():
        knots = replace(spec.theta, count=count).knots()
        assert knots[0] == 0.0
        assert knots[-1] == 180.0
        assert (np.diff(knots) > 0.0).all()


@pytest.mark.parametrize(
    ("spacing", "below", "count"), [("fan", 33, 45), ("fan", 66, 89), ("across", 50, 62), ("across", 100, 123)]
)
def test_a_knot_is_on_90_degrees_and_steps_shrink_towards_it(spacing: str, below: int, count: int) -> None:
    knots = Axis(0.0, 180.0, count, spacing).knots()
    assert knots[below] == pytest.approx(90.0, abs=1e-13)
    steps = np.diff(knots)
    assert (np.diff(steps[:below]) < 0.0).all()
    assert (np.diff(steps[below:]) > -1e-12).all()
    # From across the gradient on, a step is never finer than the last below.
    assert steps[below] > 0.5 * steps[below - 1]


def test_across_has_its_steps_where_sinh_of_them_is_the_angle_from_90() -> None:
    knots = Axis(0.0, 180.0, 62, "across").knots()
    assert np.diff(np.arcsinh((90.0 - knots[:51]) / 9.0)) == pytest.approx(-math.asinh(10.0) / 50.0, rel=1e-9)
    assert np.diff(knots[50:]) == pytest.approx(90.0 / 11.0, rel=1e-12)


@FRESH
@given(st.sampled_from(["fan", "across"]), st.floats(0.0, 100.0), st.floats(110.0, 180.0), st.integers(2, 200))
def test_an_axis_of_angles_begins_and_ends_anywhere(spacing: str, low: float, high: float, count: int) -> None:
    knots = Axis(low, high, count, spacing).knots()
    assert (knots[0], knots[-1]) == (low, high)
    # Least next to 90 degrees, where a fan is flat.
    assert (np.diff(knots) > 1e-5).all()
    # Twice the steps: every other knot is one of these.
    assert Axis(low, high, 2 * count - 1, spacing).knots()[::2] == pytest.approx(knots, abs=1e-9)


@pytest.mark.parametrize("name", ["small", "default", "dense"])
def test_a_preset_has_strictly_increasing_knots_inside_the_domain(name: str) -> None:
    spec = grid_spec(name)
    assert spec is PRESETS[name]
    for axis, low, high in ((spec.z, 0.0, 8.0), (spec.rho, -1e-300, 1.0), (spec.theta, -1e-300, 180.0 + 1e-12)):
        knots = axis.knots()
        assert (np.diff(knots) > 0.0).all()
        assert low < knots[0]
        assert knots[-1] < high
    assert spec.size == math.prod(spec.shape) == spec.z.count * spec.rho.count * spec.theta.count


def test_presets_differ_in_size_and_hash() -> None:
    assert PRESETS["small"].size < PRESETS["default"].size < PRESETS["dense"].size
    assert len({spec.sha256() for spec in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize("spec", [GRID, *PRESETS.values()])
def test_the_card_is_canonical_json_and_round_trips(spec: GridSpec) -> None:
    card = spec.card()
    assert GridSpec(**{name: Axis(**axis) for name, axis in json.loads(card).items()}) == spec
    assert card == json.dumps(json.loads(card), sort_keys=True, separators=(",", ":"))
    assert spec.sha256() == hashlib.sha256(card.encode()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        replace(GRID, z=replace(GRID.z, low=math.nextafter(0.1, 1.0))),
        replace(GRID, z=replace(GRID.z, high=3.5)),
        replace(GRID, rho=replace(GRID.rho, count=5)),
        replace(GRID, theta=replace(GRID.theta, spacing="sqrt")),
    ],
)
def test_any_change_of_the_grid_changes_its_hash(other: GridSpec) -> None:
    assert other.sha256() != GRID.sha256()


def test_a_spec_is_taken_as_it_is() -> None:
    assert grid_spec(GRID) is GRID


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*small, default, dense"):
        grid_spec("huge")


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("z", Axis(0.0, 3.0, 5, "sqrt")),
        ("z", Axis(0.1, 9.0, 5, "sqrt")),
        ("z", Axis(2.0, 1.0, 5, "linear")),
        ("z", Axis(1.0, 1.0, 5, "linear")),
        ("z", Axis(0.1, 3.0, 1, "linear")),
        ("z", Axis(math.nan, 3.0, 5, "linear")),
        ("z", Axis(0.1, math.inf, 5, "linear")),
        ("z", Axis(0.1, 3.0, 5, "cubic")),
        ("rho", Axis(-0.1, 0.9, 4, "linear")),
        ("rho", Axis(0.0, 1.0, 4, "rim")),
        ("theta", Axis(0.0, 181.0, 4, "linear")),
        ("theta", Axis(-1.0, 90.0, 4, "linear")),
        ("rho", Axis(0.5, 0.5 + 1e-12, 4, "linear")),
    ],
)
def test_a_bad_axis_is_refused_by_name(name: str, axis: Axis) -> None:
    with pytest.raises(ValueError, match=f"grid axis {name}:"):
        replace(GRID, **{name: axis})
