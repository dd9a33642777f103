"""certlut.tablegen.tail_radius: every shift of a certified ball passes, a slightly larger ball has one that fails; closed cases."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certlut.kernels.covering import Covering, across
from certlut.kernels.greedy import ray_radii
from certlut.tablegen.tail_radius import tail_radius
from certlut.tablegen.tails import solve_tail, tail_bound
from reference import naive_tails as naive

FAMILIES = {
    "l1, 2": Covering.lp(1, 2),
    "l1, 100": Covering.lp(1, 100),
    "l1.5, 20": Covering.lp(1.5, 20),
    "l2, 4": Covering.lp(2, 4),
    "l3, 4": Covering.lp(3, 4),
    "linf, 5": Covering.lp(math.inf, 5),
    "sparse 3": Covering.sparse(3),
    "net": Covering.net(0.2),
    "line": Covering.line(),
}
TAU = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])


def independent(eps: float, share: float = 1.0) -> np.ndarray:
    """Tails of votes that do not look at e, times a factor."""
    return np.minimum(share * eps * ndtr(-TAU) + 1e-5, ndtr(-TAU))


def worst(
    covering: Covering, size: float, least: float, eps: float, p: np.ndarray, count: int = 1500
) -> tuple[float, float, float]:
    """(largest B on the ball's boundary where the shift is longer than `least`, its a, its b), on a dense grid."""
    a = np.unique(np.concatenate([np.linspace(1e-3, 1.0, count), np.arange(1, 60) ** (-1.0 / covering.p) * (1.0 - 1e-9)]))
    b = np.array([across(x, covering.p, covering.w) for x in a.tolist()])
    keep = np.hypot(a, b) * size > least
    votes = np.asarray(tail_bound(a[keep] * size, b[keep] * size, eps, TAU, p))
    k = int(votes.argmax()) if keep.any() else 0
    return (float(votes[k]), float(a[keep][k] * size), float(b[keep][k] * size)) if keep.any() else (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("eps", "share"), [(0.3, 1.0), (0.15, 1.0), (0.02, 2.0), (0.001, 1.0), (0.05, 4.0)])
def test_the_ball_passes_and_a_slightly_larger_one_does_not(name: str, eps: float, share: float) -> None:
    covering, p, z = FAMILIES[name], independent(eps, share), -float(ndtri(eps))
    size = tail_radius(covering.p, covering.w, eps, TAU, p)
    assert worst(covering, size, z, eps, p)[0] < 0.5
    assert worst(covering, size * (1.0 + 3e-4), z, eps, p)[0] > 0.5 or size * covering.kappa > 24.9
    assert size * covering.kappa >= z * (1.0 - 1e-6)


def test_tails_that_say_nothing_leave_the_zeroth_order_radius() -> None:
    for covering in FAMILIES.values():
        for eps in (0.4, 0.01, 1e-6):
            size = tail_radius(covering.p, covering.w, eps, TAU, np.ones(TAU.size))
            assert size == pytest.approx(-ndtri(eps) / covering.kappa, rel=2e-5)


def test_along_one_direction_it_is_the_march() -> None:
    for eps in (0.3, 0.05, 0.001):
        p = independent(eps)
        marched = float(ray_radii(eps, TAU, p))
        assert marched * (1.0 - 3e-5) <= tail_radius(2.0, 0.0, eps, TAU, p) <= marched * (1.0 + 1e-9)


def test_an_end_that_passes_does_not_hide_a_failure_half_way() -> None:
    # h = 1{.3 < u < 1.75}: B(2, 0) < 1/2 < B(1, 0).
    eps = float(ndtr(-0.3) - ndtr(-1.75))
    for covering in (Covering.line(), Covering.net(0.02), Covering.lp(1, 2)):
        assert tail_radius(covering.p, covering.w, eps, [0.3, 1.75], [eps, 0.0]) < 1.0
    # With everything up to a = 2 covered in another way, it goes on.
    assert tail_radius(2.0, 0.0, eps, [0.3, 1.75], [eps, 0.0], 2.0) > 5.0


def test_what_is_covered_otherwise_helps_and_may_depend_on_the_size() -> None:
    eps, p = 0.2, independent(0.2, 2.0)
    covering, z = Covering.lp(1, 50), -float(ndtri(0.2))
    plain = tail_radius(covering.p, covering.w, eps, TAU, p)
    assert tail_radius(covering.p, covering.w, eps, TAU, p, z) == plain
    wide = tail_radius(covering.p, covering.w, eps, TAU, p, 1.2 * z)
    assert wide > plain * 1.02
    assert worst(covering, wide, 1.2 * z, eps, p)[0] < 0.5
    # r1 falls from 1.5 z; where R = r1 first order ends, and tails go on.
    falling = tail_radius(covering.p, covering.w, eps, TAU, p, lambda size: z + 0.5 * z / (1.0 + size))
    assert plain < falling
    assert worst(covering, falling, z + 0.5 * z / (1.0 + falling), eps, p)[0] < 0.5
    assert worst(covering, falling * 1.0003, z + 0.5 * z / (1.0 + falling), eps, p)[0] > 0.5


@pytest.mark.parametrize("name", ["l1, 100", "l1.5, 20", "sparse 3", "net"])
def test_where_the_covering_is_tight_the_dual_s_own_set_votes_one_half(name: str) -> None:
    covering, eps = FAMILIES[name], 0.1
    p = independent(eps)
    size = tail_radius(covering.p, covering.w, eps, TAU, p)
    _, a, b = worst(covering, size, -float(ndtri(eps)), eps, p, 6000)
    solution = solve_tail(a, b, eps, TAU, p)
    mass, shifted = naive.worst_set(a, max(b, 1e-6), TAU, solution.levels)
    # A classifier that the profile allows, and a shift in the ball, where the vote is lost.
    assert (np.cumsum(mass[::-1])[::-1] <= naive.cleaned(eps, TAU, p)[:-1] + 1e-8).all()
    assert shifted.sum() == pytest.approx(0.5, abs=1e-4)


def test_no_majority_certifies_nothing() -> None:
    assert tail_radius(1.0, 9.0, 0.5, TAU, independent(0.3)) == 0.0
    assert tail_radius(1.0, 9.0, 0.9, TAU, independent(0.3)) == 0.0


@pytest.mark.parametrize(
    ("p", "w", "eps", "message"),
    [
        (0.5, 1.0, 0.1, "p"),
        (1.0, 0.5, 0.1, "whole"),
        (2.0, -1.0, 0.1, "w"),
        (1.0, 3.0, math.nan, "eps = nan"),
        (1.0, 3.0, -0.1, "eps"),
    ],
)
def test_what_makes_no_sense_is_refused(p: float, w: float, eps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tail_radius(p, w, eps, TAU, independent(0.1))
