import math

import numpy as np
import pytest
import torch

from certlut import Direction, Line, Sparse, Subspace
from certlut.attacks.gap import LEVEL, STAGES, Found, find_break
from certlut.attacks.network import Vote, lowest
from certlut.threats.sets import L1, L2, LINF, Threat

SHAPE = (2, 3)
MASK = np.array([[True, False, True], [True, False, False]])
W = torch.tensor([[0.6, -0.3, 0.4], [-0.2, 0.5, 0.1]])
SIGMA = 0.5
THREATS = [L1, L2, LINF, Subspace(MASK, 2, "part"), Sparse(1), Sparse(3), Line(np.ones(SHAPE)), Direction(-np.ones(SHAPE))]


class Linear(torch.nn.Module):
    """Class 1 where w.x + b > 0."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(W), b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 4.0 * ((x * self.w).sum(dim=(1, 2)) + self.b)
        return torch.stack((-score, score), dim=1)


def search(model: torch.nn.Module, threat: Threat, radius: float, seed: int = 5) -> Found:
    return find_break(Vote(model, np.zeros(SHAPE, dtype=np.float32), 1, SIGMA, seed), threat, radius, 7)


@pytest.mark.parametrize("b", [0.4, 1.0])
@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)
def test_a_linear_classifiers_true_radius_is_found(threat: Threat, b: float) -> None:
    # The vote is Phi((b + w.delta) / (sigma |w|)).
    truth = b / -float((lowest(W, threat) * W).sum())
    for part in (0.3, 0.9):
        found = search(Linear(b), threat, part * truth)
        assert (found.threat, found.input, found.radius) == (threat.name, 7, part * truth)
        assert not found.refuted
        # Nearer than the truth is impossible but by chance, and the votes need to be some way below 1/2 to tell.
        overshoot = 0.06 * SIGMA * float(W.norm()) / b
        assert 1.0 < found.broken / truth < 1.0 + overshoot + 0.04
        assert found.share == pytest.approx(part * truth / found.broken)
        expected = 0.5 * (1.0 + math.erf(b * (1.0 - part) / (SIGMA * float(W.norm())) / math.sqrt(2.0)))
        # The worst direction, or nearly.
        assert expected - 0.03 < found.vote < expected + 0.05


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)
def test_a_radius_that_is_too_large_is_refuted(threat: Threat) -> None:
    truth = 0.4 / -float((lowest(W, threat) * W).sum())
    for part in (1.1, 2.0):
        found = search(Linear(0.4), threat, part * truth)
        assert found.refuted
        assert found.share > 1.0
    exact = search(Linear(0.4), threat, truth)
    assert not exact.refuted


def test_what_cannot_be_broken_is_not() -> None:
    with_it = search(Linear(0.4), Direction(W.numpy()), 0.3)
    assert with_it.broken == math.inf
    assert with_it.share == 0.0
    assert not with_it.refuted


class Corner(torch.nn.Module):
    """Class 0 only where both of two pixels are high: neither alone ever breaks the vote."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 6.0 * (0.4 - torch.minimum(x[:, 0, 0], x[:, 0, 1]))
        return torch.stack((-score, score), dim=1)


def test_the_l1_search_walks_edges_where_no_vertex_breaks() -> None:
    # Along an edge P(both > .4) = Phi((t - .4) / sigma)^2 = 1/2 at t = .4 + .5447 sigma each.
    truth = 2.0 * (0.4 + 0.5447 * SIGMA)
    found = search(Corner(), L1, 0.5)
    assert truth < found.broken < 1.05 * truth
    one = search(Corner(), Sparse(1), 0.5)
    assert one.broken == math.inf


class Thirds(torch.nn.Module):
    """Class 0 where the first pixel is below .4; else 1 or 2 by the sign of the second."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 6.0 * (x[:, 0, 0] - 0.4)
        little = 1e-3 * x[:, 0, 1]
        return torch.stack((-score, score + little, score - little), dim=1)


def test_a_class_that_leads_with_less_than_half_is_not_broken() -> None:
    # Class 0 has half of the votes at a shift of .4, a third, as the others have, at .4 + .4307 sigma. The second pixel moves their
    # share, which only an l2 shift of both makes use of; one pixel cannot.
    truth = 0.4 + 0.4307 * SIGMA
    vote = Vote(Thirds(), np.zeros(SHAPE, dtype=np.float32), 0, SIGMA, 9)
    found = find_break(vote, Sparse(1), 0.98 * truth, 0)
    assert not found.refuted
    assert truth * 0.99 < found.broken < 1.06 * truth
    assert 0.5 < found.vote < 0.56


def test_chance_alone_refutes_no_radius_that_is_exact() -> None:
    # At the true radius the vote is 1/2: no level is spent twice. The chance of one in all of these is below 1e-4.
    refuted = sum(search(Linear(0.4), L2, 0.4 / float(W.norm()), seed).refuted for seed in range(12))
    assert refuted == 0
    assert LEVEL * 12 < 1e-4
    assert max(STAGES) == 100_000
