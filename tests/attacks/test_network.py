import math

import numpy as np
import pytest
import torch

from certlut import Subspace
from certlut.attacks.network import VOTES, attack_network, project, steepest
from certlut.threats.sets import L1, L2, LINF, Ball

SHAPE = (2, 3)
MASK = torch.tensor([[True, False, True], [True, False, False]])
THREATS = [L1, L2, LINF, Subspace(MASK.numpy(), 2, "part")]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_projection_gives_the_nearest_point_of_the_ball(p: float, masked: bool) -> None:
    mask = MASK if masked else None
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 3.0):
        x = scale * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        near = project(x, p, 1.0, mask)
        assert float(near.norm(p)) <= 1.0 + 1e-9
        if masked:
            assert not near[~MASK].any()
        kept = x if mask is None else torch.where(mask, x, 0.0)
        if float(kept.norm(p)) <= 1.0:
            assert torch.equal(near, kept)
        # Nearest: the angle at the projection with any other point of the ball is not acute.
        others = torch.randn((4000, *SHAPE), generator=generator, dtype=torch.float64) * (1.0 if mask is None else MASK)
        others = others / others.flatten(1).norm(p, dim=1)[:, None, None]
        assert float(((kept - near) * (others - near)).sum(dim=(1, 2)).max()) <= 1e-9


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_steepest_is_in_the_ball_and_reaches_the_dual_norm(p: float) -> None:
    g = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]
    v = steepest(g, p, None)
    assert float(v.norm(p)) == pytest.approx(1.0, rel=1e-6)
    assert float((v * g).sum()) == pytest.approx(float(g.norm(dual)), rel=1e-6)
    assert not steepest(g, p, MASK)[~MASK].any()


class Linear(torch.nn.Module):
    """Two classes, class 1 where w.x + b > 0: the smoothed vote is Phi((w.x + b) / (sigma |w|))."""

    def __init__(self, w: torch.Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(w), b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 4.0 * ((x * self.w).sum(dim=(1, 2)) + self.b)
        return torch.stack((-score, score), dim=1)


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.name)
def test_the_attack_fails_inside_a_linear_classifiers_true_ball_and_succeeds_beyond(threat: Ball) -> None:
    w = torch.tensor([[0.6, -0.3, 0.4], [-0.2, 0.5, 0.1]])
    model, sigma = Linear(w, 0.4), 0.5
    part = w if threat.mask is None else torch.where(torch.from_numpy(threat.mask), w, 0.0)
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[threat.p]
    radius = 0.4 / float(part.norm(dual))
    x = np.zeros(SHAPE, dtype=np.float32)
    inside = attack_network(model, x, 1, sigma, threat, radius, 1.0, seed=5)
    beyond = attack_network(model, x, 1, sigma, threat, radius, 2.0, seed=5)
    assert not inside.broken
    # The worst point has a vote of 1/2 at R: the attack comes near it.
    assert abs(inside.vote - 0.5) < 0.06
    assert beyond.broken
    assert beyond.vote < 0.4
    assert (inside.threat, beyond.factor) == (threat.name, 2.0)


def test_the_attack_is_reproducible_and_counts_all_its_votes() -> None:
    model = Linear(torch.ones(SHAPE), 1.0)
    x = np.zeros(SHAPE, dtype=np.float32)
    runs = [attack_network(model, x, 1, 0.5, L2, 0.1, 1.0, seed=6) for _ in range(2)]
    assert runs[0] == runs[1]
    assert (runs[0].vote * VOTES) == pytest.approx(round(runs[0].vote * VOTES), abs=1e-9)
