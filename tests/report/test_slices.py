import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from certlut import Table
from certlut.report.slices import MORE, QS, SIZES, STEPS, exact_slices, explorer
from certlut.tablegen import radius
from certlut.tablegen.framework import region
from reference.known_balls import explored


def test_slices_hold_the_disc_and_are_the_exact_radii_at_known_directions() -> None:
    slices = exact_slices(lambda q, m1, m2: float(radius(q, m1, m2)))
    assert [(s.q, s.size) for s in slices] == [(q, size) for q in QS for size in SIZES]
    for s in slices:
        assert (s.radius > s.z).all()
        # Further from the direction against the gradient, the region reaches further.
        assert (np.diff(s.radius) >= -1e-9).all()
        length = s.size * math.exp(-0.5 * s.z**2) / math.sqrt(2 * math.pi)
        assert s.radius[0] == pytest.approx(float(radius(s.q, -length, 0.0)), rel=1e-12)
        assert s.radius[len(s.radius) // 2] == pytest.approx(float(radius(s.q, 0.0, length)), rel=1e-8)
        # It stays on the attacker's side of where the gradient is none.
        assert s.radius[0] < float(radius(s.q, 0.0, 0.0))


def test_the_region_is_convex_and_within_reach_of_the_half_space_only_near_the_largest_gradient() -> None:
    for s in exact_slices(lambda q, m1, m2: float(radius(q, m1, m2))):
        x, y = -s.radius * np.cos(s.theta), s.radius * np.sin(s.theta)
        turn = np.diff(x)[:-1] * np.diff(y)[1:] - np.diff(x)[1:] * np.diff(y)[:-1]
        assert (turn <= 1e-9).all()
        assert bool(s.radius[0] - s.z < 0.01) is (s.size == max(SIZES))


def interpolated(made: dict[str, Any], place: tuple[float, float, float]) -> float:
    """z / r at (z, rho, theta), as the page does it."""
    cell = np.array(made["ratio"], dtype=float).reshape([len(made[name]) for name in ("z", "rho", "theta")]) / STEPS
    for name, x in zip(("z", "rho", "theta"), place, strict=True):
        axis = made[name]
        i = min(int(np.searchsorted(axis, x, "right")) - 1, len(axis) - 2)
        w = (x - axis[i]) / (axis[i + 1] - axis[i])
        cell = (1 - w) * cell[i] + w * cell[i + 1]
    return float(cell)


def test_the_explorers_copy_is_small_and_close_to_the_table(shipped: Table) -> None:
    everything = explorer(shipped)
    assert list(everything) == ["gradient", *MORE, "steps", "digest"]
    assert len(json.dumps(everything, separators=(",", ":"))) < 300_000
    made = everything["gradient"]
    assert everything["digest"] == shipped.digest[:16]
    assert everything["steps"] == STEPS
    assert min(made["ratio"]) >= 1
    assert max(made["ratio"]) <= STEPS
    rng = np.random.default_rng(90)
    for _ in range(300):
        z, rho, theta = rng.uniform(0.1, 3.3), rng.uniform(0.0, 0.95), rng.uniform(0.0, 120.0)
        length, angle = rho * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi), math.radians(theta)
        true = float(radius(float(ndtr(z)), -length * math.cos(angle), length * math.sin(angle)))
        # Good enough to look at.
        assert z / interpolated(made, (z, rho, theta)) == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize("kind", MORE)
def test_the_explorers_other_regions_are_those_of_errors_in_a_ball(kind: str, shipped: Table) -> None:
    made = explorer(shipped)[kind]
    assert made["ratio"] == np.clip(made["ratio"], STEPS / 4.0, STEPS).tolist()
    rng = np.random.default_rng(91)
    for _ in range(8):
        z, rho, theta = rng.uniform(0.1, 2.6), rng.uniform(0.05, 0.95), rng.uniform(0.0, 180.0)
        true = float(region(explored(z, rho)[kind], [math.pi - math.radians(theta)], 4.0 * z)[0])
        assert z / interpolated(made, (z, rho, theta)) == pytest.approx(true, rel=0.1)
        # Every 20 degrees it is what was computed, between that smooth.
        node = (*(made[name][int(rng.integers(len(made[name])))] for name in ("z", "rho")), 20.0 * int(rng.integers(10)))
        true = float(region(explored(*node[:2])[kind], [math.pi - math.radians(node[2])], 4.0 * node[0])[0])
        assert node[0] / interpolated(made, node) == pytest.approx(max(true, node[0]), rel=1e-3)
