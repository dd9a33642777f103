"""certlut.lookup.votes: a node's bound is the best the stored levels allow, above the exact B and not far."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from certlut.lookup.tail_format import TailData
from certlut.lookup.tails import TailTable
from certlut.lookup.votes import Nodes, Scratch, group, node_votes, scratch
from certlut.tablegen.tails import tail_bound


@pytest.fixture
def work(tails_data: TailData) -> Scratch:
    return scratch(len(tails_data.datasets["tau"]), tails_data.datasets["level"].shape[1])


@pytest.fixture
def nodes(tails: TailTable) -> Nodes:
    return tails.nodes


def profile(seed: int, tau: np.ndarray) -> tuple[float, np.ndarray]:
    """(eps, p) at the table's thresholds, of many kinds."""
    rng = np.random.default_rng([71, seed])
    eps = float(10.0 ** rng.uniform(-5.0, math.log10(0.49)))
    p = np.minimum(eps, ndtr(-tau)) * 10.0 ** -rng.exponential(0.3, tau.size)
    if seed % 3 == 0:
        p[rng.integers(0, tau.size) :] = 1.0
    if seed % 4 == 1:
        p = eps * ndtr(-tau) * rng.uniform(0.5, 3.0) + 1e-6
    return eps, np.minimum(p, 1.0)


def best_choice(data: TailData, i: int, j: int, profile: np.ndarray) -> float:
    """The least dual value over all nondecreasing choices of levels, by dynamic programming, in float64."""
    levels = data.datasets["level"][j]
    mass = -np.diff(profile)
    value = np.zeros(levels.size)
    for k, entries in enumerate(data.datasets["excess"][i, j].astype(np.float64)):
        if not mass[k:].any():
            break  # nothing is allowed up there: the level is infinite
        value = np.minimum.accumulate(value) + levels * mass[k] + entries
    return float(value.min())


@pytest.mark.parametrize("seed", range(40))
def test_a_node_s_bound_is_the_best_choice_of_levels(tails_data: TailData, nodes: Nodes, work: Scratch, seed: int) -> None:
    d, rng = tails_data.datasets, np.random.default_rng([72, seed])
    eps, p = profile(seed, d["tau"])
    count = group(eps, p, nodes.ceiling, work)
    cleaned = np.append(np.minimum.accumulate(np.concatenate([[eps], np.minimum(p, nodes.ceiling)])), 0.0)
    for _ in range(30):
        i, j = rng.integers(0, len(d["theta"])), rng.integers(0, len(d["r"]))
        votes, best = node_votes(nodes, work, count, i, j), best_choice(tails_data, i, j, cleaned)
        # Choosing in single precision may miss the best by a hair.
        assert best * (1.0 - 1e-12) <= votes <= best + 2e-6


@pytest.mark.parametrize("seed", range(30))
def test_a_node_s_bound_is_above_the_exact_one_and_near_it(tails_data: TailData, nodes: Nodes, work: Scratch, seed: int) -> None:
    d, rng = tails_data.datasets, np.random.default_rng([73, seed])
    eps, p = profile(seed, d["tau"])
    count = group(eps, p, nodes.ceiling, work)
    for _ in range(12):
        i, j = rng.integers(1, len(d["theta"])), rng.integers(0, len(d["r"]))
        turn, r = math.radians(d["theta"][i]), float(d["r"][j])
        exact = float(tail_bound(r * math.cos(turn), r * math.sin(turn), eps, d["tau"], p))
        votes = node_votes(nodes, work, count, i, j)
        assert votes >= exact - 2e-12
        # Votes near 1/2 are what a radius rests on.
        if 0.2 < exact < 0.6:
            assert votes <= exact + 0.012


def test_a_profile_that_allows_nothing_beyond_a_threshold(tails_data: TailData, nodes: Nodes, work: Scratch) -> None:
    d = tails_data.datasets
    p = np.where(d["tau"] < 1.6, 0.05, 0.0)
    count = group(0.1, p, nodes.ceiling, work)
    assert work.mass[:count].sum() == pytest.approx(0.1, rel=1e-12)
    i, j = 5, 40
    turn, r = math.radians(d["theta"][i]), float(d["r"][j])
    exact = float(tail_bound(r * math.cos(turn), r * math.sin(turn), 0.1, d["tau"], p))
    assert exact <= node_votes(nodes, work, count, i, j) <= exact + 0.01


def test_segments_that_no_threshold_divides_are_one_group(tails_data: TailData, nodes: Nodes, work: Scratch) -> None:
    tau = tails_data.datasets["tau"]
    assert group(0.2, np.ones(tau.size), nodes.ceiling, work) == 1
    assert (work.first[0], work.first[1], work.mass[0]) == (0, tau.size + 1, 0.2)
    p = np.where(np.arange(tau.size) < 3, 0.1, 0.02)  # the first threshold and the fourth say something
    assert group(0.2, p, nodes.ceiling, work) == 3
    assert work.first[:4].tolist() == [0, 1, 4, tau.size + 1]
    assert work.mass[:3] == pytest.approx([0.1, 0.08, 0.02])
    # Bounds that rise are no news.
    assert group(0.2, np.maximum.accumulate(np.full(tau.size, 0.1) + 0.01 * np.arange(tau.size)), nodes.ceiling, work) == 2


def test_more_votes_never_lower_a_node(tails_data: TailData, nodes: Nodes, work: Scratch) -> None:
    d, rng = tails_data.datasets, np.random.default_rng(74)
    for seed in range(20):
        eps, p = profile(seed, d["tau"])
        i, j = rng.integers(0, len(d["theta"])), rng.integers(0, len(d["r"]))
        before = node_votes(nodes, work, group(eps, p, nodes.ceiling, work), i, j)
        k = rng.integers(0, p.size)
        more = np.where(np.arange(p.size) == k, p * 1.5, p)
        assert node_votes(nodes, work, group(eps, more, nodes.ceiling, work), i, j) >= before - 2e-6
        assert node_votes(nodes, work, group(min(1.2 * eps, 0.49), p, nodes.ceiling, work), i, j) >= before - 2e-6
