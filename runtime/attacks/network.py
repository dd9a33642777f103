"""A network's votes at a shifted input, and which shifts of a threat turn them: what searches for a break need."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.arrays import Counts
from ..threats.lines import Line, Ray
from ..threats.sets import Ball, Threat
from ..threats.sparse import Sparse

Model = Callable[[torch.Tensor], torch.Tensor]

STEPS = 20
GRADIENT_SAMPLES = 128
ROWS = 1000
# Coordinates tried alone, and the first of them in pairs.
CORNERS, EDGES = 6, 3


class Vote:
    """The votes at x + delta, delta float32 in the input's shape, fresh noise at every call; `label` is the class in question."""

    def __init__(self, model: Model, x: npt.ArrayLike, label: int, sigma: float, seed: int) -> None:
        self.model, self.label, self.sigma = model, label, sigma
        self.generator = torch.Generator().manual_seed(seed)
        parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.dtype = torch.float32 if parameter is None else parameter.dtype
        self.center = torch.as_tensor(np.asarray(x), dtype=torch.float32)

    def _scores(self, delta: torch.Tensor, count: int) -> torch.Tensor:
        u = torch.randn((count, *self.center.shape), generator=self.generator)
        out: torch.Tensor = self.model((self.center + delta + self.sigma * u).to(self.device, self.dtype))
        return out.to("cpu", torch.float32)

    def counts(self, delta: torch.Tensor, n: int) -> Counts:
        """Votes for each class among n."""
        votes = np.zeros(0, dtype=np.int64)
        with torch.inference_mode():
            for start in range(0, n, ROWS):
                scores = self._scores(delta, min(ROWS, n - start))
                found = torch.bincount(scores.argmax(dim=1), minlength=scores.shape[1]).numpy()
                votes = found if not start else votes + found
        return votes

    def rival(self, votes: Counts) -> int:
        """The other class with the most votes."""
        others = votes.copy()
        others[self.label] = -1
        return int(others.argmax())

    def share(self, delta: torch.Tensor, n: int) -> float:
        """The class's part of its own and its rival's n fresh votes, a half added to each: below 1/2 another class leads."""
        votes = self.counts(delta, n)
        own, other = votes[self.label] + 0.5, votes[self.rival(votes)] + 0.5
        return float(own / (own + other))

    def gradient(self, delta: torch.Tensor) -> torch.Tensor:
        """Of the log of the class's smoothed softmax probability over its rival's: hard votes have none."""
        with torch.enable_grad():
            delta = delta.detach().requires_grad_(True)
            mean = torch.softmax(self._scores(delta, GRADIENT_SAMPLES), dim=1).mean(dim=0).clamp_min(1e-6)
            others = torch.cat([mean[: self.label], mean[self.label + 1 :]])
            (gradient,) = torch.autograd.grad(mean[self.label].log() - others.max().log(), delta)
        return gradient


def descend(vote: Vote, threat: Threat, size: float, start: torch.Tensor) -> torch.Tensor:
    """Projected gradient descent from `start` in the threat's set of this size: the point it ends at."""
    delta = project(start, threat, size)
    for step in range(STEPS):
        # Steps shrink: the first ones cross the set, the last ones settle.
        length = 2.0 * size / (1.0 + step)
        delta = project(delta + length * lowest(vote.gradient(delta), threat), threat, size)
    return delta


def lowest(gradient: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The shift of size 1 with the least product with `gradient`. TypeError for a threat of another kind."""
    g = gradient
    if isinstance(threat, Ray):
        return torch.from_numpy(threat.v).to(g.dtype)
    if isinstance(threat, Line):
        v = torch.from_numpy(threat.v).to(g.dtype)
        return -v if float((v * g).sum()) > 0.0 else v
    g = _inside(g, threat)
    if isinstance(threat, Sparse):
        return -_unit(_largest(g, threat.k))
    if not isinstance(threat, Ball) or threat.p not in (1.0, 2.0, math.inf) or (threat.basis is not None and threat.p != 2.0):
        raise TypeError(f"threat {threat.name!r}: attacks are for l1, l2 and linf, spans in l2, sparse shifts, rays and lines")
    if threat.p == 2.0:
        return -_unit(g)
    if threat.p == math.inf:
        return -torch.sign(g)
    return -torch.sign(_largest(g, 1))


def project(delta: torch.Tensor, threat: Threat, size: float) -> torch.Tensor:
    """The nearest point of the threat's set of this size."""
    if isinstance(threat, Ray | Line):
        v = torch.from_numpy(threat.v).to(delta.dtype)
        along = float((v * delta).sum())
        return v * min(max(along, 0.0 if isinstance(threat, Ray) else -size), size)
    delta = _inside(delta, threat)
    if isinstance(threat, Sparse):
        delta = _largest(delta, threat.k)
    p = threat.exponent
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


def corners(gradient: torch.Tensor, threat: Threat) -> Iterator[torch.Tensor]:
    """Points of the set of size 1 that descent may miss: both ends of a line; of l1 and few coordinates vertices, of l1 edges."""
    if isinstance(threat, Line):
        v = torch.from_numpy(threat.v).to(gradient.dtype)
        yield from (v, -v)
        return
    yield lowest(gradient, threat)
    if not (isinstance(threat, Sparse) or threat.exponent == 1.0):
        return
    g = _inside(gradient, threat).flatten()
    best = g.abs().topk(min(CORNERS, threat.coordinates(g.numel()) if isinstance(threat, Ball) else g.numel())).indices.tolist()
    vertices = []
    for i in best:
        vertex = torch.zeros_like(g)
        vertex[i] = -1.0 if float(g[i]) > 0.0 else 1.0
        vertices.append(vertex.reshape(gradient.shape))
    yield from vertices
    if threat.exponent == 1.0:
        yield from (0.5 * (a + b) for i, a in enumerate(vertices[:EDGES]) for b in vertices[:i])


def _inside(x: torch.Tensor, threat: Threat) -> torch.Tensor:
    """`x` projected on the subspace of the threat, where it has one."""
    if isinstance(threat, Ball) and threat.basis is not None:
        basis = torch.from_numpy(threat.basis).to(x.dtype).flatten(1)
        return (basis.T @ (basis @ x.flatten())).reshape(x.shape)
    if isinstance(threat, Ball) and threat.mask is not None:
        return torch.where(torch.from_numpy(threat.mask), x, 0.0)
    return x


def _unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x.flatten(), dim=0, eps=1e-30).reshape(x.shape)


def _largest(x: torch.Tensor, k: int) -> torch.Tensor:
    """`x` with all but its k largest coordinates 0."""
    flat = x.flatten()
    kept = flat.abs().topk(min(k, flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).reshape(x.shape)
