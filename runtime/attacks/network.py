"""Attack a network's smoothed vote inside its certified balls: projected gradient descent on a Monte Carlo estimate of the vote.

A certificate says that the vote stays above 1/2. The attack descends the smoothed softmax probability of the certified class, then
counts fresh hard votes at the point it reached. A ball is broken where these votes put the vote below 1/2 beyond chance. The same
attack in larger balls shows that it has teeth.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..bounds.binomial import upper_probability
from ..threats.sets import Ball

Model = Callable[[torch.Tensor], torch.Tensor]

STEPS = 20
GRADIENT_SAMPLES = 128
VOTES = 4000
# A vote is called below 1/2 where its upper confidence bound at this level is.
LEVEL = 1e-6


@dataclass(frozen=True)
class Attempt:
    """The end of one attack."""

    threat: str
    factor: float
    """Size of the ball that was searched over the certified radius."""
    vote: float
    """Share of the fresh votes for the certified class at the point reached."""
    broken: bool
    """The vote is below 1/2, by its upper confidence bound at LEVEL."""


def attack_network(
    model: Model, x: npt.ArrayLike, label: int, sigma: float, threat: Ball, radius: float, factor: float, seed: int
) -> Attempt:
    """Search the ball of `factor * radius` (input units) around x for the point where the vote for `label` is least."""
    generator = torch.Generator().manual_seed(seed)
    parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.float32 if parameter is None else parameter.dtype
    center = torch.as_tensor(np.asarray(x), dtype=torch.float32)

    def scores(delta: torch.Tensor, count: int) -> torch.Tensor:
        u = torch.randn((count, *center.shape), generator=generator)
        out: torch.Tensor = model((center + delta + sigma * u).to(device, dtype))
        return out.to("cpu", torch.float32)

    mask = None if threat.mask is None else torch.from_numpy(threat.mask)
    size = factor * radius * (1.0 - 1e-6)
    delta = project(torch.randn(center.shape, generator=generator), threat.p, 0.1 * size, mask)
    for step in range(STEPS):
        delta.requires_grad_(True)
        probability = torch.softmax(scores(delta, GRADIENT_SAMPLES), dim=1)[:, label].mean()
        (gradient,) = torch.autograd.grad(torch.logit(probability, eps=1e-6), delta)
        # Steps shrink: the first ones cross the ball, the last ones settle.
        length = 2.0 * size / (1.0 + step)
        delta = project(delta.detach() - length * steepest(gradient, threat.p, mask), threat.p, size, mask)
    with torch.inference_mode():
        votes = 0
        for count in [1000] * (VOTES // 1000):
            votes += int((scores(delta, count).argmax(dim=1) == label).sum())
    bound = float(upper_probability(votes, VOTES, LEVEL))
    return Attempt(threat.name, factor, votes / VOTES, bound < 0.5)


def steepest(gradient: torch.Tensor, p: float, mask: torch.Tensor | None) -> torch.Tensor:
    """The point of the unit p-ball (on the mask) with the largest product with `gradient`."""
    g = gradient if mask is None else torch.where(mask, gradient, 0.0)
    if p == 2.0:
        return torch.nn.functional.normalize(g.flatten(), dim=0, eps=1e-30).reshape(g.shape)
    if p == math.inf:
        return torch.sign(g)
    out = torch.zeros_like(g)
    best = int(g.abs().argmax())
    out.view(-1)[best] = g.view(-1)[best].sign()
    return out


def project(delta: torch.Tensor, p: float, size: float, mask: torch.Tensor | None) -> torch.Tensor:
    """The nearest point of the p-ball of radius `size` (on the mask), p in {1, 2, inf}."""
    if mask is not None:
        delta = torch.where(mask, delta, 0.0)
    if p == math.inf:
        return delta.clamp(-size, size)
    if float(delta.norm(p)) <= size:
        return delta
    if p == 2.0:
        scaled: torch.Tensor = delta * (size / delta.norm())
        return scaled
    # Soft threshold: the one with which the absolute values add up to `size`.
    ordered = delta.abs().flatten().sort(descending=True).values.double()
    ranks = torch.arange(1, len(ordered) + 1)
    thresholds = (ordered.cumsum(0) - size) / ranks
    threshold = float(thresholds[int((ordered > thresholds).sum()) - 1])
    return torch.sign(delta) * (delta.abs() - threshold).clamp_min(0.0)
