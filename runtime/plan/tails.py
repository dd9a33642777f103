"""Largest counts of votes against beyond thresholds along +-e_j, at the median over samplings, of the model half-space.

The latent normal behind the vote and u_j have correlation c_j = y_j / phi(z): P(h = 1, u_j >= tau) is a bivariate normal
probability, counts are taken as independent binomials, and their distribution functions as Phi(sign sqrt(2 n KL(m / n, P))) at
m + 1/2 (Zubkov and Serov 2013 prove it between m and m + 1). A forecast, not a bound.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr, xlogy

from ..kernels.arrays import Array
from .model import Gradient, Vote

NODES = np.linspace(0.0, 9.0, 361)
STEPS = 24
# Correlations are kept this far below 1 in the square: a threshold seen by the vote alone is as sharp as the nodes.
APART = 1e-4


def beyond(vote: Vote, correlation: Array, thresholds: Array) -> Array:
    """P(h = 1, e.u >= tau) for each (tau, correlation of e.u with the vote against), shape (K, G)."""
    c = correlation[:, None] * math.sqrt(1.0 - APART)
    out = []
    for tau in thresholds:
        t = tau + NODES
        density = np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
        out.append(np.trapezoid(density * ndtr((c * t - vote.z) / np.sqrt(1.0 - c * c)), t, axis=1))
    return np.stack(out)


def largest_counts(vote: Vote, y: Gradient, ns: Sequence[int], thresholds: Array) -> npt.NDArray[np.int64]:
    """The median largest count over all coordinates and both signs, shape (len(ns), K)."""
    seen = np.minimum(y.size / vote.rim, 1.0)
    p = beyond(vote, np.concatenate([seen, -seen]), thresholds)
    times, out = np.tile(y.times, 2), []
    for n in ns:
        top = p.max(axis=1)
        low, high = n * top - 9.0 * np.sqrt(n * top) - 1.0, n * top + 9.0 * np.sqrt(n * top) + 40.0
        for _ in range(STEPS):
            m = 0.5 * (low + high)
            enough = log_binomial(m[:, None], n, p) @ times >= math.log(0.5)
            low, high = np.where(enough, low, m), np.where(enough, m, high)
        out.append(np.rint(high))
    return np.maximum.accumulate(np.maximum(out, 0.0)[:, ::-1], axis=1)[:, ::-1].astype(np.int64)


def log_binomial(m: Array, n: int, p: Array) -> Array:
    """Log P(count <= m), the count binomial (n, p)."""
    x = np.clip((m + 0.5) / n, 0.0, 1.0)
    p = np.clip(p, 1e-300, 1.0 - 1e-16)
    # log1p: for large n the two terms nearly cancel.
    divergence = xlogy(x, x / p) + (1.0 - x) * np.log1p(np.maximum((p - x) / (1.0 - p), -1.0 + 1e-16))
    return np.asarray(log_ndtr(np.sign(x - p) * np.sqrt(2.0 * n * np.maximum(divergence, 0.0))))
