"""certlut.lookup.frontier on made-up nodes: between nodes the worst that may bend as it may, between rays no more than the caps."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from certlut.lookup.frontier import climb, hold, walk
from certlut.lookup.votes import Nodes, Scratch, group, scratch

# Second derivatives of a smoothed vote are at least -2 phi(1).
BEND = float(norm.pdf(1.0))
EPS = 0.1


def nodes_of(radii: np.ndarray, votes: np.ndarray, chi: np.ndarray, cap: np.ndarray) -> tuple[Nodes, Scratch]:
    """Nodes without thresholds whose bounds are `votes`, shape (I, J): one level, 0, and its expectation."""
    zero, steps = np.zeros(radii.size), np.full(radii.size, np.inf, np.float32)
    nodes = Nodes(radii, chi, cap, np.empty(0), zero, steps, votes.astype(np.float32).ravel())
    work = scratch(0, 1)
    assert group(EPS, np.empty(0), nodes.ceiling, work) == 1
    return nodes, work


def first_failure(radii: np.ndarray, votes: np.ndarray, inset: float) -> float:
    """Where the slack 1/2 - inset r^2 - B may first be 0, from its values at the nodes and the most that it may bend."""
    ends, slack = np.append(0.0, radii), np.append(0.5 - EPS, 0.5 - inset * radii**2 - votes.astype(np.float32))
    for low, high, one, other in zip(ends[:-1], ends[1:], slack[:-1], slack[1:], strict=True):
        bend = BEND * (high - low) ** 2
        # one + t (other - one) - bend t (1 - t) = 0.
        roots = np.roots([bend, other - one - bend, one])
        inside = sorted(root.real for root in roots if abs(root.imag) < 1e-12 and 0.0 <= root.real <= 1.0)
        if inside:
            return float(low + inside[0] * (high - low))
    return float(radii[-1])


@pytest.mark.parametrize("seed", range(40))
def test_a_ray_ends_where_a_vote_between_two_nodes_may_be_lost(seed: int) -> None:
    """At every node it passes the bound may be below 1/2, and yet the vote lost between two of them."""
    rng = np.random.default_rng([31, seed])
    radii = np.cumsum(rng.uniform(0.05, 0.9, 8))
    chi = np.array([rng.choice([0.0, rng.uniform(0.02, 0.2)])])
    inset = BEND * float(chi[0]) ** 2
    # Slacks of the size of what a step may bend: about half of the rays end between two nodes that pass.
    slack = (np.diff(radii, prepend=0.0) ** 2) * BEND * rng.uniform(0.05, 0.8, 8)
    slack[rng.random(8) < 0.1] = -0.05
    votes = np.clip(0.5 - inset * radii**2 - slack, 0.0, 1.0)[None]
    nodes, work = nodes_of(radii, votes, chi, np.ones(1))
    _, _, rho = climb(nodes, work, 1, 0, -1, 0.5 - EPS, 1)
    expected = first_failure(radii, votes[0], inset)
    assert expected * (1.0 - 1e-6) <= rho <= expected


def test_some_of_those_rays_end_between_nodes_that_pass() -> None:
    radii, votes = np.array([0.5, 1.0]), np.array([[0.49, 0.49]])
    nodes, work = nodes_of(radii, votes, np.zeros(1), np.ones(1))
    _, _, rho = climb(nodes, work, 1, 0, -1, 0.5 - EPS, 1)
    assert 0.5 < rho < 0.75


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_lies_below_the_polyline_or_in_a_disc(seed: int) -> None:
    rng = np.random.default_rng([32, seed])
    low, high = rng.uniform(0.5, 3.0, 2)
    below = min(low, high) * rng.uniform(0.5, 1.0)
    points = rng.uniform(0.05, 1.0, (2, 2))
    furthest, disc = float(points.sum(axis=1).max()), np.array([rng.uniform(0.0, 4.0), 0.0])
    best = np.full(2, 100.0)
    hold(np.array([[furthest, *points.ravel()]]), low, high, below, disc, best)

    def certified(size: float, radius: float) -> bool:
        under = (size * points[:, 0] / low + size * points[:, 1] / high <= 1.0).all()
        return bool(under or size * furthest <= max(below, radius))

    for size, radius in zip(best.tolist(), disc.tolist(), strict=True):
        assert certified(size * (1.0 - 1e-9), radius)
        assert not certified(size * (1.0 + 1e-6), radius)


@pytest.mark.parametrize("cap", [1.01, 1.5, 9.0])
def test_a_sector_reaches_no_further_along_its_lower_ray_than_the_cap_allows(cap: float) -> None:
    """Two rays that end at about 1 and 2: the polyline starts at 2 where segments that steep are certified, else at cap times 1."""
    radii = np.linspace(0.02, 3.0, 150)
    votes = np.stack([np.where(radii < end, 0.3, 0.9) for end in (2.0, 1.0)])
    nodes, work = nodes_of(radii, votes, np.zeros(2), np.array([1.0, cap]))
    upper, lower = first_failure(radii, votes[1], 0.0), first_failure(radii, votes[0], 0.0)
    # One piece, next to the lower ray.
    pieces, starts = np.array([[1.0, 0.99, 0.005, 0.98, 0.01]]), np.array([[0, 0, 1, 1]])
    best = np.full((1, 1), 50.0)
    walk(nodes, work, 1, (-1, 0.5 - EPS), pieces, starts, np.array([[0.0, 1.0]]), np.zeros((1, 1)), best)
    start = min(lower, cap * upper)
    expected = max(1.0 / max(0.99 / start + 0.005 / upper, 0.98 / start + 0.01 / upper), upper)
    assert expected * (1.0 - 1e-6) <= best[0, 0] <= expected * (1.0 + 1e-12)
    assert math.isfinite(expected)
