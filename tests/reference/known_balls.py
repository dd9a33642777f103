"""Votes whose errors are a ball of three-dimensional noise, of any probability and gradient: Figure 1's, the explorer's."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import ncx2

from certlut.tablegen.framework import Information, curvature, hermite, slope, slope_across, tail, value
from reference import known_votes as known

THRESHOLDS = tuple(np.arange(1.0, 3.6, 0.5).tolist())
# How closely tails are known for the explorer: 100,000 votes tell as much.
KNOWN = 1e-4


def ball_against(q: float, share: float) -> tuple[known.Profile, float, float]:
    """(profile, centre, radius): votes against in a ball about (centre, 0, 0), centre < 0; the gradient `share` of the largest."""

    def centre(size: float) -> float:
        return float(brentq(lambda c: ncx2.cdf(size * size, 3, c * c) - (1.0 - q), 0.0, size + 8.0))

    def missing(size: float) -> float:
        f = known.shell("", 3, -centre(size), 0.0, size, inside=False)
        return f.level(slope(0.0)) / float(known.density(ndtri(q))) - share

    least = float(brentq(lambda size: ncx2.cdf(size * size, 3, 0.0) - (1.0 - q), 0.01, 5.0)) * (1.0 + 1e-9)
    size = float(brentq(missing, least, 60.0))
    return known.shell("ball", 3, -centre(size), 0.0, size, inside=False), -centre(size), size


def falls(centre: float, size: float) -> float:
    """How far from the ball's centre the vote is 1/2; 0 where it is above that everywhere."""
    if ncx2.cdf(size * size, 3, 0.0) <= 0.5:
        return 0.0
    return float(brentq(lambda c: ncx2.cdf(size * size, 3, c * c) - 0.5, 0.0, size + 3.0))


def orders(f: known.Profile) -> dict[str, Information]:
    """Orders 0 to 3 and tails both ways, exact; t along the gradient."""
    moments = [value(0.0), slope(0.0, "="), slope_across(0.0, "="), curvature(0.0), hermite(3, 0.0)]
    levels = [0.0 if c.across is not None else f.level(c) for c in moments]
    kinds = {f"order {k}": Information(moments[:n]).at(levels[:n]) for k, n in ((0, 1), (1, 3), (2, 4), (3, 5))}
    tails = [value(0.0), *(tail(tau, 0.0, side=side) for tau in THRESHOLDS for side in (1, -1))]
    return kinds | {"6 tails each way": Information(tails).at([f.level(c) for c in tails])}


def explored(z: float, rho: float) -> dict[str, Information]:
    """What the explorer may add to the vote and the gradient: the curvature along it, or tails both ways known within KNOWN."""
    # A ball about the origin has no direction.
    f, _, _ = ball_against(float(ndtr(z)), max(rho, 1e-3))
    kinds = orders(f)
    tails = []
    for tau in THRESHOLDS:
        for side in (1, -1):
            against = float(ndtr(-tau)) - f.level(tail(tau, 0.0, side=side))
            tails.append(tail(tau, min(against + KNOWN, float(ndtr(-tau))), side=side))
    return {"curvature": kinds["order 2"], "tails": kinds["order 1"] + Information(tails)}
