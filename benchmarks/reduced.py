"""A Tally fed with exact draws of what it looks at, two or three normals a sample: 3072 dimensions at their cost.

For a classifier that sees v.u only, noise across v is independent of the votes. A stage's bets look at w.u, w the one or two
directions fixed before it: so a sample is u in the space of v and these, and the vote, and the bets are made by Tally's own code on
noise of two or three dimensions. Given the votes, the sums of u over the votes for and over those against are, across that space,
independent normal vectors whose variance is the number of votes: they are drawn once a stage, in all dimensions.

Two things are not as in the real Tally: there are no bets on coordinates ("top" is NaN), and of the mean square of x over the
coordinates, which a later stage's stakes may rest on, only the expectation across that space is used.
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri

from certlut.sampling.bets import Tally
from certlut.sampling.card import Sampling
from certlut.statistics.summary import BETS, Moments
from certlut.threats.projections import Projection
from certlut.threats.sets import ALL

Array = npt.NDArray[np.float64]

ROWS = 2**16


class Reduced(Tally):
    """Draws its own samples of f = 1{rho v.u + sqrt(1 - rho^2) e >= -z}, z = Phi^-1(q), v a unit vector of shape (d,)."""

    def __init__(
        self, v: Array, q: float, rho: float, n: int, against: tuple[int, int], rng: np.random.Generator, w: Array | None = None
    ) -> None:
        """w: a proposal, tried by as many copies as a card has."""
        proposed, trial = None, (0.0, 0)
        if w is not None:
            copies = Sampling(n=n).copies
            # Of a stream of its own: the samples are the same with and without.
            t, e, s = rng.spawn(1)[0].standard_normal((3, copies))
            lost = rho * t + math.sqrt(1.0 - rho**2) * e < -ndtri(q)
            cosine = min(1.0, float(abs(w @ v))) * math.copysign(1.0, w @ v)
            trial = -float((cosine * t + math.sqrt(1.0 - cosine**2) * s)[lost].sum()) / copies, copies
            proposed, against = torch.as_tensor(w), (against[0] + int(lost.sum()), against[1] + copies)
        super().__init__({ALL: Projection()}, len(v), n, against, torch.device("cpu"), proposed, trial)
        self.v, self.z, self.rho, self.rng = torch.as_tensor(v), float(ndtri(q)), rho, rng

    def draw(self) -> Moments:
        """All samples."""
        for size in self.sizes:
            self._begin()
            self._draw_stage(size)
            self._left, self._taken = 0, size
        moments = self.moments()
        none = np.full((2, BETS), np.nan)
        return dataclasses.replace(moments, bets={**moments.bets, ALL: {**moments.bets[ALL], "top": none}})

    def _draw_stage(self, size: int) -> None:
        stage = self._stage
        assert stage is not None
        # v first, then what the directions have across it, where they have.
        frame = torch.linalg.qr(torch.cat((self.v[:, None], stage.directions), dim=1))[0]
        seen, v = frame.shape[1], frame.T @ self.v
        whole = self.sums, self.top, self._square, self.d
        self.sums, self.top = torch.zeros(2, 2, seen).double(), torch.zeros(2, BETS, seen).double()
        self._square, self.d = torch.zeros(seen).double(), seen
        self._kept, self._pending_factors = {}, torch.ones(2, BETS, seen).double()
        self._stage = dataclasses.replace(stage, directions=frame.T @ stage.directions)
        half, votes, squares = int(self._index == 3), 0, 0.0
        for start in range(0, size, ROWS):
            u = torch.as_tensor(self.rng.standard_normal((min(ROWS, size - start), seen)))
            latent = self.rho * (u @ v) + math.sqrt(1.0 - self.rho**2) * torch.as_tensor(self.rng.standard_normal(len(u)))
            f = (latent >= -self.z).double()
            self._add(u, f)
            votes += int(f.sum())
            s = f - stage.b
            if stage.h is not None:
                z, rho = stage.h
                s = f - torch.special.ndtr((z + rho * (u @ self._stage.directions[:, 0])) / (1.0 - rho * rho).sqrt())
            squares += float(s @ s)
        inside, square, self._stage = self.sums[half], self._square, stage
        self.sums, self.top, self._square, self.d = whole
        # Bets on coordinates are left out.
        self._pending = 0
        for_, against = (math.sqrt(count) * torch.as_tensor(self.rng.standard_normal(self.d)) for count in (votes, size - votes))
        drawn = torch.stack((for_, for_ + against))
        self.sums[half] += drawn - (drawn @ frame) @ frame.T + inside @ frame.T
        self._square += (square.sum() + (self.d - seen) * squares) / self.d


class Constant(Reduced):
    """The same without the prediction of votes: bets on w.u (f - b), b the constant of Z."""

    def _begin(self) -> None:
        taken = max(self._taken, 1)
        seen, spread = self._square_along / taken, self._square.mean() / taken
        super()._begin()
        stage = self._stage
        assert stage is not None
        if stage.h is None:
            return
        length = stage.mu + stage.mean_h @ stage.directions
        if self._index == 1:
            # As in Tally, with nothing predicted.
            z, eps = float(stage.h[0]), float(torch.special.ndtr(-stage.h[0]))
            seen = torch.full_like(seen, 0.8 * (eps + z * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)))
        n = sum(self.sizes)
        self._stage = dataclasses.replace(
            stage,
            h=None,
            b=torch.tensor(self.b).double(),
            mean_h=torch.zeros_like(stage.mean_h),
            mu=torch.clamp(length, -0.3, 0.3),
            beta_along=torch.clamp((2.0 * self._targets[:, None] / (n * torch.maximum(seen, spread))).sqrt(), max=0.2),
        )
