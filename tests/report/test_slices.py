import json
import math

import numpy as np
import pytest
from scipy.special import ndtr

from certlut import Table
from certlut.report.slices import QS, SIZES, exact_slices, explorer
from certlut.tablegen import radius


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


def test_the_explorers_copy_is_small_and_close_to_the_table(shipped: Table) -> None:
    made = explorer(shipped)
    text = json.dumps(made, separators=(",", ":"))
    assert len(text) < 300_000
    assert made["digest"] == shipped.digest[:16]
    shape = (len(made["z"]), len(made["rho"]), len(made["theta"]))
    ratio = np.array(made["ratio"]).reshape(shape)
    assert ratio.min() >= 1
    assert ratio.max() <= made["steps"]
    rng = np.random.default_rng(90)
    for _ in range(300):
        z, rho, theta = rng.uniform(0.1, 3.3), rng.uniform(0.0, 0.95), rng.uniform(0.0, 120.0)
        weights, corner = [], []
        for axis, x in zip((made["z"], made["rho"], made["theta"]), (z, rho, theta), strict=True):
            i = min(int(np.searchsorted(axis, x, "right")) - 1, len(axis) - 2)
            corner.append(i)
            weights.append((x - axis[i]) / (axis[i + 1] - axis[i]))
        i, j, k = corner
        cell = ratio[i : i + 2, j : j + 2, k : k + 2].astype(float)
        for w in weights:
            cell = (1 - w) * cell[0] + w * cell[1]
        length, angle = rho * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi), math.radians(theta)
        true = float(radius(float(ndtr(z)), -length * math.cos(angle), length * math.sin(angle)))
        # Good enough to look at.
        assert z * made["steps"] / float(cell) == pytest.approx(true, rel=0.02)
