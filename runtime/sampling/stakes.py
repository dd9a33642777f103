"""The schedule of the bets (bets.py): how many samples a stage has, what is staked, and around what. No torch.

Every number here is fixed before the samples that it is used on: a bad one costs width and never soundness, but for REACH and TAIL,
which belong together. The functions take floats, NumPy arrays or torch tensors; `xp` is numpy or torch, as the arguments are.
"""

import math
from typing import Any

import numpy as np

from ..bounds.chernoff import tail_square
from ..kernels.arrays import Array

# |t| beyond this is clipped, t standard normal; E[(|t| - REACH)+], rounded up: 2 (phi(REACH) - REACH Q(REACH)) = 2.2546e-6.
REACH, TAIL = 4.4, 2.26e-6
# Keeps the largest loss of a stake, BETA_MAX (REACH + MU_MAX), below 1.
BETA_MAX, MU_MAX = 0.2, 0.3
RHO_MAX = 0.95
# The first stage knows the frequency of votes against from few samples: more of them are allowed for.
MORE = 1.3
# What a proposed direction is taken to see of y before samples say more, give or take, over the largest |y|_2 there is.
LIKELY, DOUBT = 0.9, 0.5
# Of a normal-shaped w this gives the least bound of |y|_1 for a wide range of |y|_2 and what is known of it.
THINNED = 0.7
# E (f - h)^2 over eps, with h along such a direction.
LEFT = 0.6
# Along the mean's direction less was seen than along the half-space's own, and f - h is smaller than f.
LESS = 0.8


def stages(n: int) -> tuple[int, int, int, int]:
    """Sizes of the four stages; the first three are the first half."""
    return n // 8, n // 8, n // 2 - 2 * (n // 8), n - n // 2


def chosen_b(eps: float) -> float:
    """The constant b of Z = u (f - b) where votes against have frequency eps: in between a worst direction's and a typical one's.

    A multiple of 1/64: few distinct values are cheaper to evaluate many inputs with.
    """
    return max(0.5, round(64.0 * (1.0 - 0.7 * float(tail_square(np.asarray(eps))))) / 64.0)


def vote_square(b: Any, eps: Any) -> Any:
    """E (f - b)^2 where votes against have frequency eps."""
    return (1.0 - b) ** 2 + (2.0 * b - 1.0) * eps


def first_constant(xp: Any, eps: Any) -> tuple[Any, Any]:
    """Of the first stage, which has no direction yet: the constant that votes are compared with, and E (f - constant)^2."""
    constant = xp.clip(1.0 - MORE * eps, 0.5, None)
    return constant, (1.0 - constant) ** 2 + (2.0 * constant - 1.0) * MORE * eps


def first_spread(eps: Any, z: Any, rim: Any, rho: Any) -> Any:
    """E (x - mu)^2 along a direction that nothing was seen along yet: of a half-space (z, rho), rim = phi(z), and somewhat less."""
    return LESS * (eps + z * rim) * (1.0 - LESS * rho**4)


def first_left(eps: Any) -> Any:
    """E (f - h)^2 of the first stage along a proposed direction."""
    return LEFT * eps


def likely_along(seen: Any, drawn: int, eps: Any, z: Any, rim: Any) -> Any:
    """w.y along a proposed w, from its mean over the samples drawn: few votes against do not turn w around."""
    doubt = (eps + z * rim) / (eps + z * rim + drawn * (DOUBT * rim) ** 2)
    return seen + doubt * (LIKELY * rim - seen)


def thinned(w: Array) -> Array:
    """A unit vector w, its coordinates shrunk by THINNED of their root mean square, to 0 at most; w itself where none is left."""
    size = np.maximum(np.abs(w) - THINNED / math.sqrt(len(w)), 0.0)
    length = float(np.linalg.norm(size))
    thin = np.copysign(size / length, w) if length > 0.0 else w
    return np.asarray(thin / np.linalg.norm(thin))


def best_stake(xp: Any, target: Any, n: int, spread: Any) -> Any:
    """The stake on n samples of E (x - mu)^2 = spread whose bound is nearly the best at the level e^-target."""
    return xp.clip(xp.sqrt(2.0 * target / (n * spread)), None, BETA_MAX)


def centre(xp: Any, mean: Any) -> Any:
    """A guess of E x, kept where the largest loss allows it."""
    return xp.clip(mean, -MU_MAX, MU_MAX)
