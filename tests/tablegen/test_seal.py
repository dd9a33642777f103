"""certlut.tablegen.seal: what is stored is a valid cut, a tight one, and certifies its own node."""

import numpy as np
import pytest
from scipy.special import ndtri

from certlut.kernels.arrays import Array
from certlut.kernels.normal import density, upper
from certlut.lookup.format import TableData
from certlut.tablegen import solve
from certlut.tablegen.enclose import hinge_upper
from certlut.tablegen.node import solve_node
from certlut.tablegen.seal import seal
from reference import naive


@pytest.fixture(scope="module")
def nodes(small_data: TableData) -> Array:
    """Rows z, rho, theta, radius, a0, a1, a2, c of every node of the small table."""
    d = small_data.datasets
    places = np.meshgrid(d["z"], d["rho"], d["theta"], indexing="ij")
    return np.stack(
        [np.asarray(x, dtype=np.float64).ravel() for x in [*places, *(d[k] for k in ("radius", "a0", "a1", "a2", "c"))]], axis=1
    )


def surplus_at_node(row: Array, hinge: object) -> object:
    """The cut's value less 1/2 at the node's own point, in 50 digits."""
    mp = naive.MP
    z, rho, theta, _, a0, a1, a2, _ = (mp.mpf(float(x)) for x in row)
    m1 = -rho * mp.npdf(z) * mp.cospi(theta / 180)
    m2 = rho * mp.npdf(z) * mp.sinpi(theta / 180)
    return mp.mpf(1) / 2 - hinge - a0 * naive.mp_upper(z) + a1 * m1 + a2 * m2


def test_c_is_a_tight_upper_bound_of_the_hinge_in_ball_arithmetic(nodes: Array) -> None:
    for row in np.random.default_rng(51).permutation(nodes)[:300]:
        z, _, _, r, a0, a1, a2, c = row.tolist()
        bound = float(hinge_upper(r, a0, a1, a2))
        assert bound <= c, row
        # Tight on the scale of the terms it is made of.
        assert c - bound <= 1e-12 * (0.5 + c + a0 * upper(z)), row


def test_c_is_a_tight_upper_bound_of_the_hinge_in_32_digits(nodes: Array) -> None:
    rng = np.random.default_rng(52)
    # A third of them slabs (a2 = 0).
    slabs, others = nodes[nodes[:, 6] == 0.0], nodes[nodes[:, 6] > 0.0]
    for row in [*rng.permutation(slabs)[:4], *rng.permutation(others)[:8]]:
        z, _, _, r, a0, a1, a2, c = row.tolist()
        exact = naive.mp_hinge((a0, a1, a2), r)
        assert exact <= c, row
        assert c - exact <= 1e-12 * (0.5 + c + a0 * upper(z)), row
        assert surplus_at_node(row, exact) >= 0, row


def test_every_stored_cut_certifies_its_own_node(nodes: Array) -> None:
    for row in nodes:
        assert surplus_at_node(row, naive.MP.mpf(row[7])) >= 0, row


def test_a_stored_radius_is_just_below_the_exact_one(nodes: Array) -> None:
    z, rho, theta, r = nodes.T[:4]
    exact = np.array([solve(q, m1, m2).radius for q, m1, m2 in zip(*naive.points(z, rho, theta), strict=True)])
    assert (r <= exact * (1.0 + 1e-11)).all()  # the points themselves are rounded
    assert (r >= exact * (1.0 - 1e-9)).all()
    assert np.median(1.0 - r / exact) <= 2e-12


def test_a1_and_a2_are_sealed_as_float32_and_a_slab_stays_a_slab() -> None:
    rng = np.random.default_rng(53)
    for case in range(100):
        z, rho, theta = rng.uniform(0.02, 5.0), rng.uniform(0.0, 0.999), (0.0 if case % 4 == 0 else rng.uniform(1.0, 179.0))
        eps, rim = upper(z), density(z)
        m1, m2 = -rho * rim * np.cos(np.radians(theta)), rho * rim * np.sin(np.radians(theta))
        a = np.empty(3)
        solved, slope, *_ = solve_node(eps, m1, m2, z, a)
        before = a.copy()
        r, c = seal(eps, m1, m2, z, solved, slope, a)
        assert np.array_equal(a[1:], before[1:].astype(np.float32).astype(np.float64))
        assert a[0] == pytest.approx(before[0], rel=1e-7)
        assert (a[2] == 0.0) == (theta == 0.0)
        assert solved * (1.0 - 1e-6) <= r <= solved
        assert float(hinge_upper(r, *a)) <= c


@pytest.mark.parametrize("change", [(1.0, 1.01, 1.0), (1.0, 1.0, 0.97), (1.001, 1.0, 1.0), (0.999, 0.99, 1.02)])
def test_even_coarse_multipliers_are_sealed_soundly_at_the_cost_of_radius(change: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(54)
    for _ in range(10):
        z, rho, theta = rng.uniform(1.0, 4.0), rng.uniform(0.1, 0.9), rng.uniform(20.0, 160.0)
        q, m1, m2 = naive.point(z, rho, theta)
        eps, z = 1.0 - q, float(-ndtri(1.0 - q))
        a = np.empty(3)
        solved, slope, *_ = solve_node(eps, m1, m2, z, a)
        a *= change
        r, c = seal(eps, m1, m2, z, solved, slope, a)
        assert float(hinge_upper(r, *a)) <= c
        assert 0.5 - c - a[0] * eps + a[1] * m1 + a[2] * m2 >= 0.0, (q, m1, m2)
        assert r <= solved
