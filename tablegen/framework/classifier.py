"""The classifier that attains the worst vote: {L <= Lam} for the optimal multipliers, to be plotted and sampled."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array

from .information import Information
from .line import Line
from .worst import Status, WorstVote, problem, worst_vote


@dataclass(frozen=True)
class WorstClassifier:
    """The set f_a; call it on noise (t, s) for votes."""

    information: Information
    r: float
    angle: float
    vote: WorstVote
    missed: float
    """The most by which f_a misses a level, over sqrt(E psi^2). Not 0 where the worst f is a mixture on an edge of f_a."""

    def __call__(self, t: npt.ArrayLike, s: npt.ArrayLike = 0.0) -> npt.NDArray[np.bool_]:
        """Which points (t, s) of the noise get the vote; arrays that broadcast."""
        t, s = (np.asarray(x, dtype=np.float64) for x in (t, s))
        lam = sum(x * c.psi(t, s) for x, c in zip(self.vote.multipliers, self.information.constraints, strict=True))
        along, across = self.r * math.cos(self.angle), self.r * math.sin(self.angle)
        return np.asarray(np.exp(along * t + across * s - 0.5 * self.r**2) <= lam)

    def intervals(self) -> list[tuple[float, float]]:
        """The set as intervals of t, for information about t and a shift along it. ValueError otherwise."""
        p = problem(self.information, self.r, self.angle)
        if not isinstance(p.hinges, Line):
            raise ValueError("intervals: information or shift has a part across the t axis; call the classifier on (t, s) instead")
        edges, _, first, _ = p.hinges.edges(np.array(self.vote.multipliers)[p.kept], 1.0)
        ends = [-math.inf, *edges.tolist(), math.inf][0 if first else 1 :]
        return list(zip(ends[::2], ends[1::2], strict=False))


def worst_classifier(information: Information, r: float, angle: float = 0.0) -> WorstClassifier:
    """The set that attains `worst_vote` at the shift r (cos angle, sin angle).

    Raises:
        ValueError: no classifier has the information; as `worst_vote`.
        ArithmeticError: the worst vote did not converge.
    """
    vote = worst_vote(information, r, angle)
    if vote.status == Status.INFEASIBLE:
        raise ValueError(information.impossible())
    if vote.status == Status.HARD:
        raise ArithmeticError(f"no convergence at r = {r!r}, angle = {angle!r}: the worst vote is at least {vote.lower!r}")
    p = problem(information, r, angle)
    a = np.array(vote.multipliers)[p.kept]
    got: Array = p.hinges.mean - p.hinges(a).moments
    over = p.levels.level - got
    miss = np.where(p.levels.high > 0.0, np.maximum(over, 0.0), 0.0) + np.where(p.levels.low < 0.0, np.maximum(-over, 0.0), 0.0)
    return WorstClassifier(information, r, angle, vote, float((miss / p.hinges.size).max(initial=0.0)))
