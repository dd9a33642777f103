import math

import numpy as np
import pytest
import torch

from certlut import Direction, Line, Lp, Sparse, Subspace
from certlut.attacks.network import ROWS, Vote, corners, descend, lowest, project
from certlut.threats.sets import L1, L2, LINF, Threat

SHAPE = (2, 3)
MASK = np.array([[True, False, True], [True, False, False]])
BASIS = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 2)))[0].T.reshape(2, *SHAPE)
V = np.random.default_rng(1).standard_normal(SHAPE)
THREATS = [
    L1,
    L2,
    LINF,
    *(Subspace(MASK, p, f"part{p}") for p in (1, 2, math.inf)),
    Subspace(basis=BASIS, p=2, name="span"),
    Sparse(1),
    Sparse(2),
    Line(V),
    Direction(V),
]
named = pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)


def points(threat: Threat, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random points of the threat's set of size 1, by its own definition."""
    x = torch.randn((count, 6), generator=generator, dtype=torch.float64)
    if isinstance(threat, type(Sparse(1))):
        kept = torch.rand((count, 6), generator=generator).argsort(dim=1) < threat.k
        x = torch.where(kept, x, 0.0)
    elif threat.span is not None:
        basis = torch.from_numpy(threat.span).reshape(len(threat.span), 6)
        x = x[:, : len(basis)] @ basis
    elif threat.touched is not None and threat.name != "direction":
        x = torch.where(torch.from_numpy(threat.touched).flatten(), x, 0.0)
    if threat.name == "direction":
        x = x[:, :1].abs() * torch.from_numpy(threat.v).flatten()
    x = x / x.norm(threat.exponent, dim=1, keepdim=True)
    inner = torch.rand((count, 1), generator=generator, dtype=torch.float64)
    return torch.cat([x, inner * x]).reshape(-1, *SHAPE)


@named
def test_projection_gives_the_nearest_point_of_the_set(threat: Threat) -> None:
    generator = torch.Generator().manual_seed(0)
    others = points(threat, 20_000, generator)
    for scale in (0.1, 1.0, 3.0):
        x = scale * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        near = project(x, threat, 1.0)
        assert float(near.norm(threat.exponent)) <= 1.0 + 1e-9
        assert torch.allclose(project(near, threat, 1.0), near, atol=1e-12)
        assert float((others - x).flatten(1).norm(dim=1).min()) >= float((near - x).norm()) - 1e-9
        assert torch.allclose(project(7.0 * x, threat, 7.0), 7.0 * near, atol=1e-9)


@named
def test_the_lowest_shift_is_in_the_set_and_no_other_of_its_size_is_lower(threat: Threat) -> None:
    generator = torch.Generator().manual_seed(1)
    # Of size 1: the first half.
    others = points(threat, 20_000, generator)[:20_000]
    for _ in range(5):
        g = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        v = lowest(g, threat)
        assert torch.allclose(project(v, threat, 1.0), v, atol=1e-9)
        assert float((v * g).sum()) <= float((others * g).sum(dim=(1, 2)).min()) + 1e-9
        for corner in corners(g, threat):
            assert float(corner.norm(threat.exponent)) == pytest.approx(1.0, rel=1e-6)
            assert torch.allclose(project(corner, threat, 1.0), corner, atol=1e-9)


def test_corners_are_vertices_and_edges_down_the_gradient() -> None:
    g = torch.tensor([[3.0, -2.0, 0.1], [0.0, 1.0, -0.5]])
    found = [corner.flatten().tolist() for corner in corners(g, L1)]
    assert [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0] in found
    assert [0.0, 1.0, 0.0, 0.0, 0.0, 0.0] in found
    assert [-0.5, 0.5, 0.0, 0.0, 0.0, 0.0] in found
    line = list(corners(g, Line(V)))
    assert len(line) == 2
    assert torch.equal(line[0], -line[1])
    assert len(list(corners(g, Direction(V)))) == 1


def test_a_threat_without_attacks_is_named() -> None:
    with pytest.raises(TypeError, match=r"threat 'l1\.5'"):
        lowest(torch.ones(SHAPE), Lp(1.5))


class Linear(torch.nn.Module):
    """Two classes, class 1 where w.x + b > 0: the smoothed vote is Phi((w.x + b) / (sigma |w|))."""

    def __init__(self, w: torch.Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(w), b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 4.0 * ((x * self.w).sum(dim=(1, 2)) + self.b)
        return torch.stack((-score, score), dim=1)


@named
def test_descent_ends_in_the_set_near_its_lowest_point(threat: Threat) -> None:
    w = torch.tensor([[0.6, -0.3, 0.4], [-0.2, 0.5, 0.1]])
    vote = Vote(Linear(w, 0.4), np.zeros(SHAPE, dtype=np.float32), 1, 0.5, seed=3)
    delta = descend(vote, threat, 0.7, torch.full(SHAPE, 0.2))
    assert torch.allclose(project(delta, threat, 0.7), delta, atol=1e-6)
    best = 0.7 * float((lowest(w, threat) * w).sum())
    assert float((delta * w).sum()) <= best + 0.1 * abs(best)


def test_votes_are_fresh_reproducible_and_all_counted() -> None:
    model, x = Linear(torch.ones(SHAPE), 1.0), np.zeros(SHAPE, dtype=np.float32)
    first, again = Vote(model, x, 1, 0.5, seed=6), Vote(model, x, 1, 0.5, seed=6)
    n, zero = 2 * ROWS + 7, torch.zeros(SHAPE)
    counts = [first.counts(zero, n).tolist(), first.counts(zero, n).tolist()]
    assert counts[0] != counts[1]
    assert [sum(row) for row in counts] == [n, n]
    assert counts == [again.counts(zero, n).tolist(), again.counts(zero, n).tolist()]
    assert Vote(Linear(torch.zeros(SHAPE), 1.0), x, 1, 0.5, seed=6).counts(zero, n).tolist() == [0, n]
    # Phi(1 / (.5 sqrt 6)) = .793; shifted by -1/6 in every pixel 1/2.
    assert abs(first.share(zero, 20_000) - 0.7929) < 0.015
    assert abs(first.share(torch.full(SHAPE, -1.0 / 6.0), 20_000) - 0.5) < 0.018


def test_the_rival_is_the_strongest_other_class_and_the_share_is_against_it_alone() -> None:
    vote = Vote(lambda x: x, np.array([2.0, 0.0, 1.0, 0.0], dtype=np.float32), 0, 0.8, seed=1)
    votes = vote.counts(torch.zeros(4), 4000)
    assert votes.argmax() == 0
    assert vote.rival(votes) == 2
    assert vote.rival(np.array([0, 3, 1, 2])) == 1
    share = vote.share(torch.zeros(4), 4000)
    assert abs(share - votes[0] / (votes[0] + votes[2])) < 0.03
    # Down for the class, up for its rival, and for no other.
    gradient = vote.gradient(torch.zeros(4))
    assert gradient[0] > 0.0 > gradient[2]
    assert abs(float(gradient[1])) < 0.3 * float(gradient[0])
